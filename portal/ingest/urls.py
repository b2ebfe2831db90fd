from django.urls import path

from portal.ingest import examination, views

VERSION = "<slug:slug>/<int:number>"

urlpatterns = [
    path(f"steward/{VERSION}/", views.version, name="version"),
    path(f"steward/{VERSION}/start/", views.start, name="version-start"),
    path(f"steward/{VERSION}/progress/", views.progress, name="version-progress"),
    path(f"steward/{VERSION}/report/", views.report, name="report"),
    path("examinations/", examination.examinations, name="examinations"),
    path(f"examinations/{VERSION}/", examination.examination, name="examination"),
    path(f"examinations/{VERSION}/start/", examination.start, name="examination-start"),
    path(f"examinations/{VERSION}/sign/", examination.sign, name="examination-sign"),
    path(f"examinations/{VERSION}/next/", examination.following, name="examination-next"),
    path(f"examinations/{VERSION}/<int:position>/keep/", examination.keep, name="examination-keep"),
    path(f"examinations/{VERSION}/<int:position>/", examination.item, name="examination-item"),
]
