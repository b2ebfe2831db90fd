from django.urls import path

from portal.releases import api

urlpatterns = [
    path("releases", api.Releases.as_view(), name="api-releases"),
    path("releases/<int:pk>", api.OneRelease.as_view(), name="api-release"),
    path("releases/<int:pk>/propose", api.ProposeAgain.as_view(), name="api-release-propose"),
    path("releases/<int:pk>/votes", api.Votes.as_view(), name="api-release-votes"),
    path("releases/<int:pk>/recuse", api.Recuse.as_view(), name="api-release-recuse"),
    path("releases/<int:pk>/reviewers", api.NameReviewers.as_view(), name="api-release-name"),
    path("releases/<int:pk>/withdraw", api.Withdraw.as_view(), name="api-release-withdraw"),
    path("releases/<int:pk>/revoke", api.Revoke.as_view(), name="api-release-revoke"),
    path("jobs/<int:job>/lift", api.LiftBlock.as_view(), name="api-job-lift"),
    path("releases/<int:pk>/bundle", api.BundleFacts.as_view(), name="api-release-bundle"),
    path("releases/<int:pk>/link", api.Link.as_view(), name="api-release-link"),
    path("downloads/<str:token>", api.Download.as_view(), name="api-download"),
    path("revocations", api.Revocations.as_view(), name="api-revocations"),
]
