"""Django settings. Everything that differs between one machine and many comes from the environment.

``GLOVEBOX_HOME`` holds data (database, encrypted objects, queue); ``GLOVEBOX_KEYS`` holds keys and
lies outside it, so that a copy of the data alone opens nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _

from portal import logs
from portal.first_start import web_secret

BASE_DIR = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("GLOVEBOX_HOME", "glovebox-data")).resolve()
KEYS = Path(os.environ.get("GLOVEBOX_KEYS", str(HOME.parent / "glovebox-keys"))).resolve()
DEBUG = False
SECRET_KEY = web_secret(KEYS)
BASE_URL = os.environ.get("GLOVEBOX_URL", "http://127.0.0.1:8000")
ALLOWED_HOSTS = os.environ.get("GLOVEBOX_HOSTS", "127.0.0.1,localhost,testserver").split(",")
CSRF_TRUSTED_ORIGINS = [BASE_URL]
HTTPS = BASE_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
if HTTPS:
    # The prefix makes browsers refuse such a cookie from a neighbouring host or without TLS.
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-session", "__Host-csrf"
# How many proxies of ours stand in front; throttling by address believes no other's header.
ALLAUTH_TRUSTED_PROXY_COUNT = int(os.environ.get("GLOVEBOX_PROXIES", "0"))
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 8 * 3600
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "portal.pages",
    "portal.accounts",
    "portal.audit",
    "portal.catalog",
    "portal.ingest",
    "portal.access",
    "portal.jobs",
    "portal.releases",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "portal.plain_input.PlainQueryMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "portal.accounts.middleware.RolesMiddleware",
    "portal.accounts.middleware.LanguageMiddleware",
    "portal.accounts.middleware.SecondFactorMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "portal.errors.UserErrorMiddleware",
    # The last one: its transaction holds what the view does and nothing else.
    "portal.accounts.middleware.OneTransactionMiddleware",
]
ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "portal" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "font-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}

if os.environ.get("GLOVEBOX_POSTGRES_DB"):
    DATABASES: dict[str, dict[str, Any]] = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["GLOVEBOX_POSTGRES_DB"],
            "USER": os.environ.get("GLOVEBOX_POSTGRES_USER", ""),
            "PASSWORD": os.environ.get("GLOVEBOX_POSTGRES_PASSWORD", ""),
            "HOST": os.environ.get("GLOVEBOX_POSTGRES_HOST", ""),
            "PORT": os.environ.get("GLOVEBOX_POSTGRES_PORT", ""),
        }
    }
else:
    HOME.mkdir(parents=True, exist_ok=True, mode=0o700)
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": HOME / "portal.sqlite3",
            "OPTIONS": {
                # Immediate transactions take the write lock at BEGIN: two writers wait for each
                # other instead of failing half-way with "database is locked".
                "transaction_mode": "IMMEDIATE",
                "timeout": 30,
                # Savepoints that grow spill into a temporary file unless told to stay in memory,
                # and a confined web process may not make files in /tmp.
                "init_command": (
                    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; "
                    # A wrapped key that is deleted must not lie on in a free page.
                    "PRAGMA temp_store=MEMORY; PRAGMA secure_delete=ON;"
                ),
            },
            # A real file: an in-memory test database knows no second connection and no WAL.
            "TEST": {"NAME": HOME / "test.sqlite3"},
        }
    }

# Sign-in throttling and used one-time codes are counted here, so all web processes must share it.
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}
}

AUTH_USER_MODEL = "accounts.Person"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_SIGNUP_FORM_CLASS = "portal.accounts.signup.NameForm"
ACCOUNT_EMAIL_VERIFICATION = os.environ.get("GLOVEBOX_EMAIL_VERIFICATION", "none")
# Requests name their analysts by address, so nobody takes another without proving it is theirs;
# where no mail proves it, the address of the sign-up is the only one.
ACCOUNT_MAX_EMAIL_ADDRESSES = 1 if ACCOUNT_EMAIL_VERIFICATION == "none" else None
ACCOUNT_LOGOUT_ON_GET = False
# A session ends with the browser, and after SESSION_COOKIE_AGE at the latest.
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_ADAPTER = "portal.accounts.adapter.AccountAdapter"
ACCOUNT_REAUTHENTICATION_TIMEOUT = 600
MFA_ADAPTER = "portal.accounts.adapter.MFAAdapter"
# Where no mail server confirms addresses, second factors must be possible all the same.
MFA_ALLOW_UNVERIFIED_EMAIL = ACCOUNT_EMAIL_VERIFICATION == "none"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not HTTPS
MFA_TOTP_ISSUER = "Glovebox"
# One step of 30 s either way, for clocks that differ (RFC 6238, 5.2); a used code is refused.
MFA_TOTP_TOLERANCE = 1
EMAIL_BACKEND = os.environ.get(
    "GLOVEBOX_EMAIL_BACKEND", "django.core.mail.backends.filebased.EmailBackend"
)
EMAIL_FILE_PATH = HOME / "mail"
DEFAULT_FROM_EMAIL = os.environ.get("GLOVEBOX_EMAIL_FROM", "glovebox@localhost")

LOGGING = logs.CONFIGURATION

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("ko", _("Korean"))]
LOCALE_PATHS = [BASE_DIR / "portal" / "locale"]
TIME_ZONE = os.environ.get("GLOVEBOX_TIME_ZONE", "Asia/Seoul")
USE_I18N = USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = HOME / "static"
STATIC_ROOT.mkdir(parents=True, exist_ok=True, mode=0o700)
STATICFILES_DIRS = [BASE_DIR / "portal" / "static"]
WHITENOISE_USE_FINDERS = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Uploads go to disk in chunks; what a request may carry is checked by each view against policy.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
FILE_UPLOAD_TEMP_DIR = HOME / "uploads"
FILE_UPLOAD_TEMP_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "portal.accounts.api_tokens.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["portal.accounts.permissions.SignedIn"],
    "DEFAULT_PARSER_CLASSES": [
        "portal.plain_input.PlainJSONParser",
        "rest_framework.parsers.FormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
    "PAGE_SIZE": 50,
    "EXCEPTION_HANDLER": "portal.errors.api_exception_handler",
    "DEFAULT_THROTTLE_RATES": {"sign-in": "60/min"},
    "NUM_PROXIES": ALLAUTH_TRUSTED_PROXY_COUNT,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Glovebox API",
    "DESCRIPTION": "Everything the pages do, for programs.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
}

# Signed checkpoints of the audit chain leave the database for this folder: another disk or host.
AUDIT_CHECKPOINTS = Path(
    os.environ.get("GLOVEBOX_CHECKPOINTS", str(HOME.parent / "glovebox-checkpoints"))
).resolve()

CELERY_BROKER_URL = os.environ.get("GLOVEBOX_BROKER", "filesystem://")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = "long"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# Nobody sends commands to workers through the queue.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
if CELERY_BROKER_URL.startswith("filesystem"):
    # Files that appear whole and are taken once; kombu's own writes them in place.
    CELERY_BROKER_TRANSPORT = "portal.file_queue:Transport"
    QUEUE = HOME / "queue"
    for part in ("messages", "control"):
        (QUEUE / part).mkdir(parents=True, exist_ok=True, mode=0o700)
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(QUEUE / "messages"),
        "data_folder_out": str(QUEUE / "messages"),
        "control_folder": str(QUEUE / "control"),
        "polling_interval": 0.25,
    }
