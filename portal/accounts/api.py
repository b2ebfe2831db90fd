"""People, organisations, units, roles and tokens for programs."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import generics, status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView

from policies.errors import Denied, _
from portal.accounts import actions, queries, roles, second_factor
from portal.accounts import serializers as shapes
from portal.accounts.middleware import proved_second_factor
from portal.accounts.models import ApiToken, Organisation, Person, RoleAssignment, Unit
from portal.accounts.permissions import signed_in
from portal.accounts.sign_in_events import client_address


def fields_of(shape: Any, request: Request) -> dict[str, Any]:
    """Return a request's checked fields. Raises DRF's ValidationError, answered with the field."""
    given = shape(data=request.data)
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)


class MeView(APIView):
    """Oneself."""

    @extend_schema(responses=shapes.PersonSerializer)
    def get(self, request: Request) -> Response:
        return Response(shapes.PersonSerializer(signed_in(request)).data)

    @extend_schema(request=shapes.OwnDetailsSerializer, responses=shapes.PersonSerializer)
    def patch(self, request: Request) -> Response:
        actions.change_own_details(
            **fields_of(shapes.OwnDetailsSerializer, request), by=signed_in(request)
        )
        return Response(shapes.PersonSerializer(signed_in(request)).data)


class TotpView(APIView):
    """Set up one-time codes: ask for a secret, then send the first code."""

    throttle_classes = (ScopedRateThrottle,)
    throttle_scope = "sign-in"

    @extend_schema(request=None, responses=shapes.TotpStartSerializer)
    def post(self, request: Request) -> Response:
        secret, url, proof = second_factor.start_totp(by=signed_in(request))
        return Response({"secret": secret, "url": url, "proof": proof})

    @extend_schema(request=shapes.TotpConfirmSerializer, responses=shapes.RecoveryCodesSerializer)
    def put(self, request: Request) -> Response:
        fields = fields_of(shapes.TotpConfirmSerializer, request)
        codes = second_factor.confirm_totp(**fields, by=signed_in(request))
        return Response({"recovery_codes": codes}, status=status.HTTP_201_CREATED)


class PeopleView(generics.ListAPIView[Person]):
    """The people one may see; a new account is made by whom it is for, without signing in."""

    serializer_class = shapes.PersonSerializer
    throttle_scope = "sign-in"

    def get_permissions(self) -> list[Any]:
        return [AllowAny()] if self.request.method == "POST" else list(super().get_permissions())

    def get_throttles(self) -> list[Any]:
        return [ScopedRateThrottle()] if self.request.method == "POST" else []

    def get_queryset(self) -> QuerySet[Person]:
        people = queries.people_visible_to(signed_in(self.request))
        email = self.request.query_params.get("email", "")
        return people.filter(email=email.lower()) if email else people

    @extend_schema(request=shapes.NewPersonSerializer, responses={201: shapes.SignedUpSerializer})
    def post(self, request: Request) -> Response:
        if second_factor.must_confirm_email():
            raise Denied(
                _("Sign up on the page: your address must be confirmed by e-mail."),
                code="accounts.confirm-email",
            )
        fields = fields_of(shapes.NewPersonSerializer, request)
        actions.sign_up(**fields, address=client_address(request._request))
        return Response(shapes.SignedUpSerializer(fields).data, status=status.HTTP_201_CREATED)


class PersonView(APIView):
    """One person: administrators place them in a unit or close the account."""

    def _person(self, request: Request, pk: int) -> Person:
        return get_object_or_404(queries.people_visible_to(signed_in(request)), pk=pk)

    @extend_schema(responses=shapes.PersonSerializer)
    def get(self, request: Request, pk: int) -> Response:
        return Response(shapes.PersonSerializer(self._person(request, pk)).data)

    @extend_schema(request=shapes.PlaceSerializer, responses=shapes.PersonSerializer)
    def patch(self, request: Request, pk: int) -> Response:
        person = self._person(request, pk)
        actions.place_person(
            person=person, **fields_of(shapes.PlaceSerializer, request), by=signed_in(request)
        )
        return Response(shapes.PersonSerializer(self._person(request, pk)).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        actions.deactivate_person(person=self._person(request, pk), by=signed_in(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class OrganisationsView(generics.ListAPIView[Organisation]):
    """Organisations; administrators add them."""

    serializer_class = shapes.OrganisationSerializer
    queryset = Organisation.objects.order_by("pk")

    @extend_schema(
        request=shapes.NewOrganisationSerializer, responses=shapes.OrganisationSerializer
    )
    def post(self, request: Request) -> Response:
        fields = fields_of(shapes.NewOrganisationSerializer, request)
        organisation = actions.create_organisation(**fields, by=signed_in(request))
        body = shapes.OrganisationSerializer(organisation).data
        return Response(body, status=status.HTTP_201_CREATED)


class UnitsView(generics.ListAPIView[Unit]):
    """Units of organisations; administrators add them."""

    serializer_class = shapes.UnitSerializer
    queryset = Unit.objects.select_related("organisation").order_by("pk")

    @extend_schema(request=shapes.NewUnitSerializer, responses=shapes.UnitSerializer)
    def post(self, request: Request) -> Response:
        unit = actions.create_unit(
            **fields_of(shapes.NewUnitSerializer, request), by=signed_in(request)
        )
        return Response(shapes.UnitSerializer(unit).data, status=status.HTTP_201_CREATED)


class RolesView(generics.ListAPIView[RoleAssignment]):
    """Role assignments; an administrator proposes one."""

    serializer_class = shapes.RoleSerializer

    def get_queryset(self) -> QuerySet[RoleAssignment]:
        return queries.assignments_visible_to(signed_in(self.request))

    @extend_schema(request=shapes.NewRoleSerializer, responses=shapes.RoleSerializer)
    def post(self, request: Request) -> Response:
        fields = fields_of(shapes.NewRoleSerializer, request)
        assignment = roles.propose_role(**fields, by=signed_in(request))
        return Response(shapes.RoleSerializer(assignment).data, status=status.HTTP_201_CREATED)


class RoleView(APIView):
    """Confirm a proposed role (another administrator), or end one."""

    # Without a name of its own it would be called as the proposing of a role is.
    @extend_schema(operation_id="v1_roles_decide", request=None, responses=shapes.RoleSerializer)
    def post(self, request: Request, pk: int, action: str) -> Response:
        assignment = get_object_or_404(queries.assignments_visible_to(signed_in(request)), pk=pk)
        if action == "confirm":
            roles.confirm_role(assignment=assignment, by=signed_in(request))
        else:
            roles.end_role(assignment=assignment, by=signed_in(request))
        assignment.refresh_from_db()
        return Response(shapes.RoleSerializer(assignment).data)


class TokensView(generics.ListAPIView[ApiToken]):
    """One's own tokens; sign in for a new one (one-time code where there is a role or a factor)."""

    serializer_class = shapes.TokenSerializer
    throttle_scope = "sign-in"

    def get_authenticators(self) -> list[Any]:
        # Signing in uses no session: a browser's cookie must not make it need a CSRF token.
        method = self.request.method if self.request else ""
        return [] if method == "POST" else super().get_authenticators()

    def get_permissions(self) -> list[Any]:
        return [AllowAny()] if self.request.method == "POST" else list(super().get_permissions())

    def get_throttles(self) -> list[Any]:
        return [ScopedRateThrottle()] if self.request.method == "POST" else []

    def get_queryset(self) -> QuerySet[ApiToken]:
        return queries.tokens_of(signed_in(self.request))

    @extend_schema(request=shapes.SignInSerializer, responses=shapes.NewTokenSerializer)
    def post(self, request: Request) -> Response:
        fields = fields_of(shapes.SignInSerializer, request)
        person, proved = second_factor.sign_in(
            request._request,
            email=fields["email"],
            password=fields["password"],
            totp=fields["totp"],
        )
        return _new_token(person, fields, proved)


def _new_token(person: Person, fields: dict[str, Any], proved: bool) -> Response:
    token, secret = actions.create_token(
        name=fields["name"], days=fields["days"], second_factor=proved, by=person
    )
    body = {"id": token.pk, "token": secret, "expires_at": token.expires_at}
    return Response(body, status=status.HTTP_201_CREATED)


class OwnTokensView(APIView):
    """A token from a page's session, for those whose second factor is a passkey."""

    @extend_schema(request=shapes.OwnTokenSerializer, responses=shapes.NewTokenSerializer)
    def post(self, request: Request) -> Response:
        if isinstance(request.auth, ApiToken):
            raise Denied(_("A token makes no tokens; sign in."), code="accounts.token-from-token")
        fields = fields_of(shapes.OwnTokenSerializer, request)
        return _new_token(signed_in(request), fields, proved_second_factor(request._request))


class TokenView(APIView):
    """Revoke a token: one's own, or (administrators) anybody's."""

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        token = get_object_or_404(ApiToken, pk=pk)
        actions.revoke_token(token=token, by=signed_in(request))
        return Response(status=status.HTTP_204_NO_CONTENT)
