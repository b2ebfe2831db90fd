from django.urls import path

from portal.catalog import steward, views

urlpatterns = [
    path("datasets/", views.catalogue, name="catalogue"),
    path("datasets/<slug:slug>/", views.dataset, name="dataset"),
    path("datasets/<slug:slug>/croissant.json", views.croissant_file, name="croissant"),
    path("datasets/<slug:slug>/sample.zip", views.sample, name="sample"),
    path("steward/", steward.datasets, name="steward-datasets"),
    path("steward/new/", steward.new, name="steward-new"),
    path("steward/<slug:slug>/", steward.dataset, name="steward-dataset"),
    path("steward/<slug:slug>/versions/", steward.new_version, name="steward-new-version"),
    path("steward/<slug:slug>/<int:number>/retire/", steward.retire, name="version-retire"),
]
