"""Settings: the web workers and Celery's workers import them, so that both know the store."""

import os
from pathlib import Path
from typing import Any

import sidelight

sidelight.configure("sqlite:///events.db", outboxes=["sqlite:///tickets.db"])

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["127.0.0.1"]
TIME_ZONE = "UTC"
ROOT_URLCONF = "tickets.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "tickets",
]
MIDDLEWARE = [
    "tickets.urls.bind_request_id",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "tickets.db",
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    },
    "events": {  # sidelight's store, for the admin: read only
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": f"file:{Path('events.db').absolute()}?mode=ro",
        "OPTIONS": {"uri": True},
    },
}
DATABASE_ROUTERS = ["tickets.models.EventsRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.request",
            ]
        },
    }
]
