from django.urls import path

from portal.releases import leaving_views, views, voting_views

urlpatterns = [
    path("releases/", views.releases, name="releases"),
    path("releases/new/<int:job>/", views.new, name="release-new"),
    path("releases/<int:pk>/", views.one, name="release"),
    path("releases/<int:pk>/live/", views.live, name="release-live"),
    path("releases/<int:pk>/propose/", views.propose_again, name="release-propose"),
    path("releases/<int:pk>/withdraw/", views.withdraw, name="release-withdraw"),
    path("releases/<int:pk>/vote/", voting_views.vote, name="release-vote"),
    path("releases/<int:pk>/name/", voting_views.name, name="release-name"),
    path("releases/<int:pk>/recuse/", voting_views.recuse, name="release-recuse"),
    path("releases/<int:pk>/revoke/", leaving_views.revoke, name="release-revoke"),
    path("releases/<int:pk>/link/", leaving_views.link, name="release-link"),
    path("jobs/<int:pk>/lift/", voting_views.lift, name="job-lift"),
    path("downloads/<str:token>/", leaving_views.download, name="download"),
    path("revocations/", leaving_views.revocations, name="revocations"),
    path("revocations.json", leaving_views.revocation_list, name="revocation-list"),
]
