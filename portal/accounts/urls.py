from django.urls import path, re_path

from portal.accounts import administration, views

urlpatterns = [
    path("me/", views.me, name="me"),
    path("me/tokens/", views.make_token, name="me-tokens"),
    path("me/tokens/<int:pk>/revoke/", views.revoke_token, name="me-token-revoke"),
    path("me/roles/<int:pk>/end/", views.give_role_up, name="me-role-end"),
    path("administration/", administration.people, name="administration"),
    path("administration/people/<int:pk>/", administration.person, name="administration-person"),
    path(
        "administration/people/<int:pk>/close/",
        administration.close_account,
        name="administration-close",
    ),
    path(
        "administration/people/<int:pk>/tokens/<int:token>/revoke/",
        administration.revoke_token,
        name="administration-token-revoke",
    ),
    path("administration/roles/", administration.all_roles, name="administration-roles"),
    re_path(
        r"^administration/roles/(?P<pk>[0-9]{1,18})/(?P<action>confirm|end)/$",
        administration.decide_role,
        name="administration-role",
    ),
    path(
        "administration/organisations/",
        administration.organisations,
        name="administration-organisations",
    ),
]
