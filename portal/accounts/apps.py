from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "portal.accounts"
    label = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Receivers are connected by being imported, the API's extensions too.
        from portal.accounts import api_tokens, sign_in_events  # noqa: F401
