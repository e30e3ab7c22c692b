"""Settings for trying it out. Its data lies in the directory DJANGO_SITE_DATA, or in the current one."""

import os
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("DJANGO_SITE_DATA", "."))

SECRET_KEY = os.environ.get("SECRET_KEY", "for trying it out")
DEBUG = os.environ.get("DJANGO_SITE_DEBUG", "1") == "1"  # serves static files and uploads too
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
ROOT_URLCONF = "mysite.urls"
ASGI_APPLICATION = "mysite.asgi.application"
WSGI_APPLICATION = "mysite.wsgi.application"
LOGIN_REDIRECT_URL = "notes"
TIME_ZONE = "UTC"
STATIC_URL = "static/"
MEDIA_URL = "media/"
MEDIA_ROOT = DATA / "media"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "board",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA / "db.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},  # several processes write
    }
}
if database := os.environ.get("PGDATABASE"):  # PostgreSQL: its client takes PGHOST and the like by itself
    threads = int(os.environ.get("ASGICTL_THREADS", "2"))  # each has a connection, however many requests there are
    pool = {"min_size": threads, "max_size": threads}
    DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": database, "OPTIONS": {"pool": pool}}}
# For mysite.asgi alone. Without a Redis rooms are one process's; under asgictl the instance's Redis is named here.
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if redis := os.environ.get("ASGICTL_REDIS"):
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [redis]}}}
