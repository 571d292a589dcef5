"""Feature views: joined as of each event's time for training, looked up by entity key for serving."""

from noria.features.definitions import Entity, FeatureView
from noria.features.join import join_as_of
from noria.features.online import OnlineFeatures, ViewSpec

__all__ = ["Entity", "FeatureView", "OnlineFeatures", "ViewSpec", "join_as_of"]
