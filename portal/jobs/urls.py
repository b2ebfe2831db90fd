from django.urls import path

from portal.jobs import examination_views, views

urlpatterns = [
    path("jobs/", views.jobs, name="jobs"),
    path("jobs/new/", views.new, name="job-new"),
    path("jobs/<int:pk>/", views.one, name="job"),
    path("jobs/<int:pk>/live/", views.live, name="job-live"),
    path("jobs/<int:pk>/cancel/", views.cancel, name="job-cancel"),
    path("jobs/<int:pk>/priority/", views.prioritise, name="job-priority"),
    path("jobs/<int:pk>/checkpoint/", views.checkpoint, name="job-checkpoint"),
    path("jobs/<int:pk>/log/", examination_views.log, name="job-log"),
    path("jobs/<int:pk>/findings/", examination_views.internal, name="job-internal"),
    path("submissions/<int:pk>/code/", examination_views.code, name="submission-code"),
    path("submissions/<int:pk>/changes/", examination_views.changes, name="submission-changes"),
    path("submissions/<int:pk>/archive/", examination_views.archive, name="submission-archive"),
]
