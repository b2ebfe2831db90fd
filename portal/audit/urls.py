from django.urls import path

from portal.audit import views

urlpatterns = [
    path("audit/", views.events, name="audit"),
    path("audit/check/", views.check, name="audit-check"),
    path("audit/walks/<int:pk>/", views.walk, name="audit-walk"),
    path("audit/walks/<int:pk>/live/", views.walk_live, name="audit-walk-live"),
    path("audit/checkpoints/", views.all_checkpoints, name="audit-checkpoints"),
    path("audit/checkpoints/<int:pk>.json", views.checkpoint, name="audit-checkpoint"),
    path("keys/", views.public_keys, name="keys"),
    path("keys/<slug:use>-<str:key_id>.pem", views.public_key, name="key"),
]
