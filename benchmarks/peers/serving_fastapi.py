"""The seeds' FastAPI service (seed 002, 2.1), as written there, with a route for many rows beside it.

With SERVING_RUNTIME=onnx the same service asks ONNX Runtime, once, in place of scikit-learn, twice.
"""

from __future__ import annotations

import joblib
import numpy as np
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from serving_models import FOLDER, ON_ONNX, Forest

app = FastAPI(title="ML Prediction API", version="1.0.0")

if ON_ONNX:
    onnx = Forest()
else:
    model = joblib.load(FOLDER / "forest.joblib")
    scaler = joblib.load(FOLDER / "scaler.joblib")


class PredictionRequest(BaseModel):
    features: list[float]


class BatchRequest(BaseModel):
    features: list[list[float]]


class PredictionResponse(BaseModel):
    prediction: int
    probability: float
    confidence: str


class BatchResponse(BaseModel):
    predictions: list[int]
    probabilities: list[float]


@app.post("/predict", response_model=PredictionResponse)
async def predict(request: PredictionRequest) -> PredictionResponse:
    try:
        features = np.array(request.features).reshape(1, -1)
        prediction, probability = _ask(features)
        confidence = float(max(probability[0]))
        if confidence >= 0.9:
            level = "very_high"
        elif confidence >= 0.7:
            level = "high"
        elif confidence >= 0.5:
            level = "medium"
        else:
            level = "low"
        return PredictionResponse(prediction=int(prediction[0]), probability=confidence, confidence=level)
    except Exception as e:
        raise HTTPException(status_code=500, detail=str(e)) from e


@app.post("/predict/batch", response_model=BatchResponse)
async def predict_batch(request: BatchRequest) -> BatchResponse:
    predictions, probabilities = _ask(np.array(request.features))
    return BatchResponse(predictions=predictions.tolist(), probabilities=probabilities.max(axis=1).tolist())


@app.get("/health")
async def health_check() -> dict[str, object]:
    return {"status": "healthy", "model_loaded": True}


def _ask(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if ON_ONNX:
        probabilities = onnx.predict_proba(features)
        return probabilities.argmax(axis=1), probabilities
    features_scaled = scaler.transform(features)
    return model.predict(features_scaled), model.predict_proba(features_scaled)
