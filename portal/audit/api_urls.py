from django.urls import path

from portal.audit import api

urlpatterns = [
    path("audit/events", api.EventsView.as_view(), name="api-audit-events"),
    path("audit/checkpoints", api.CheckpointsView.as_view(), name="api-audit-checkpoints"),
    path("keys", api.KeysView.as_view(), name="api-keys"),
]
