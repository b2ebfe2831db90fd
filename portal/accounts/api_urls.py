from django.urls import path, re_path

from portal.accounts import api

urlpatterns = [
    path("me", api.MeView.as_view(), name="api-me"),
    path("me/totp", api.TotpView.as_view(), name="api-me-totp"),
    path("me/tokens", api.OwnTokensView.as_view(), name="api-me-tokens"),
    path("people", api.PeopleView.as_view(), name="api-people"),
    path("people/<int:pk>", api.PersonView.as_view(), name="api-person"),
    path("organisations", api.OrganisationsView.as_view(), name="api-organisations"),
    path("units", api.UnitsView.as_view(), name="api-units"),
    path("roles", api.RolesView.as_view(), name="api-roles"),
    re_path(
        r"^roles/(?P<pk>[0-9]{1,18})/(?P<action>confirm|end)$",
        api.RoleView.as_view(),
        name="api-role",
    ),
    path("tokens", api.TokensView.as_view(), name="api-tokens"),
    path("tokens/<int:pk>", api.TokenView.as_view(), name="api-token"),
]
