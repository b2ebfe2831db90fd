from django.urls import path, re_path

from portal.access import grant_views, views, voting_views

urlpatterns = [
    path("requests/", views.requests, name="requests"),
    path("requests/new/<slug:slug>/", views.new, name="request-new"),
    path("requests/<int:pk>/", views.one, name="request"),
    path("requests/<int:pk>/edit/", views.edit, name="request-edit"),
    path("requests/<int:pk>/withdraw/", views.withdraw, name="request-withdraw"),
    path(
        "requests/<int:pk>/documents/<int:document>/",
        views.document,
        name="request-document",
    ),
    path("requests/<int:pk>/vote/", voting_views.vote, name="request-vote"),
    path("requests/<int:pk>/recuse/", voting_views.recuse, name="request-recuse"),
    path("requests/<int:pk>/sign/", grant_views.sign, name="request-sign"),
    path("agreement/", grant_views.agreement, name="agreement"),
    path("grants/", grant_views.grants, name="grants"),
    path("grants/<int:pk>/", grant_views.grant, name="grant"),
    re_path(
        r"^grants/(?P<pk>[0-9]{1,18})/(?P<action>suspend|resume|revoke)/$",
        grant_views.change,
        name="grant-change",
    ),
]
