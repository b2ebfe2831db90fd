from django.urls import path

from portal.catalog import api

urlpatterns = [
    path("datasets", api.Datasets.as_view(), name="api-datasets"),
    path("datasets/<slug:slug>", api.OneDataset.as_view(), name="api-dataset"),
    path("datasets/<slug:slug>/croissant", api.CroissantDocument.as_view(), name="api-croissant"),
    path("datasets/<slug:slug>/sample", api.SampleArchive.as_view(), name="api-sample"),
    path("datasets/<slug:slug>/versions", api.Versions.as_view(), name="api-versions"),
    path(
        "datasets/<slug:slug>/versions/<int:number>", api.OneVersion.as_view(), name="api-version"
    ),
    path(
        "datasets/<slug:slug>/versions/<int:number>/retire",
        api.Retire.as_view(),
        name="api-version-retire",
    ),
]
