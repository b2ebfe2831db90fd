from django.urls import path

from portal.jobs import api

urlpatterns = [
    path("submissions", api.Submissions.as_view(), name="api-submissions"),
    path("submissions/<int:pk>", api.OneSubmission.as_view(), name="api-submission"),
    path(
        "submissions/<int:pk>/archive", api.SubmissionArchive.as_view(), name="api-submission-zip"
    ),
    path("jobs", api.Jobs.as_view(), name="api-jobs"),
    path("jobs/<int:pk>", api.OneJob.as_view(), name="api-job"),
    path("jobs/<int:pk>/cancel", api.Cancel.as_view(), name="api-job-cancel"),
    path("jobs/<int:pk>/priority", api.PriorityOf.as_view(), name="api-job-priority"),
    path("jobs/<int:pk>/checkpoint", api.CheckpointOf.as_view(), name="api-job-checkpoint"),
    path("jobs/<int:pk>/curves", api.Curves.as_view(), name="api-job-curves"),
    path("jobs/<int:pk>/inspection", api.InspectionReport.as_view(), name="api-job-inspection"),
    path(
        "jobs/<int:pk>/inspection/internal",
        api.InternalFindings.as_view(),
        name="api-job-internal",
    ),
    path("jobs/<int:pk>/log", api.Log.as_view(), name="api-job-log"),
]
