"""The gateway's gRPC front: the Open Inference Protocol v2, with health and reflection."""
