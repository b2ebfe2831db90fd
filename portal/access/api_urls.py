from django.urls import path

from portal.access import api

urlpatterns = [
    path("request-fields", api.Fields.as_view(), name="api-request-fields"),
    path("service-levels", api.ServiceLevels.as_view(), name="api-service-levels"),
    path("requests", api.Requests.as_view(), name="api-requests"),
    path("requests/<int:pk>", api.OneRequest.as_view(), name="api-request"),
    path("requests/<int:pk>/submit", api.Submit.as_view(), name="api-request-submit"),
    path("requests/<int:pk>/withdraw", api.Withdraw.as_view(), name="api-request-withdraw"),
    path("requests/<int:pk>/documents", api.Documents.as_view(), name="api-request-documents"),
    path(
        "requests/<int:pk>/documents/<int:document>",
        api.OneDocument.as_view(),
        name="api-request-document",
    ),
    path("requests/<int:pk>/votes", api.Votes.as_view(), name="api-request-votes"),
    path("requests/<int:pk>/recuse", api.Recuse.as_view(), name="api-request-recuse"),
    path("requests/<int:pk>/sign-agreement", api.SignAgreement.as_view(), name="api-request-sign"),
    path("agreements", api.Agreements.as_view(), name="api-agreements"),
    path("grants", api.Grants.as_view(), name="api-grants"),
    path("grants/<int:pk>", api.OneGrant.as_view(), name="api-grant"),
    path(
        "grants/<int:pk>/suspend",
        api.ChangeGrant.as_view(action="suspend"),
        name="api-grant-suspend",
    ),
    path(
        "grants/<int:pk>/resume", api.ChangeGrant.as_view(action="resume"), name="api-grant-resume"
    ),
    path(
        "grants/<int:pk>/revoke", api.ChangeGrant.as_view(action="revoke"), name="api-grant-revoke"
    ),
]
