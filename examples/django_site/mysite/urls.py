from django.conf import settings
from django.conf.urls.static import static
from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

from board import views

urlpatterns = [
    path("", views.notes, name="notes"),
    path("latest/", views.latest, name="latest"),
    path("report/", views.report, name="report"),
    path("hold/", views.hold, name="hold"),
    path("follow/", views.follow, name="follow"),
    path("chat/<slug:room>/", views.room, name="room"),
    path("accounts/", include("django.contrib.auth.urls")),
    path("admin/", admin.site.urls),
    *staticfiles_urlpatterns(),
    *static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT),
]
