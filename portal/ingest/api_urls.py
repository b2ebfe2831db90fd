from django.urls import path

from portal.ingest import api

VERSION = "datasets/<slug:slug>/versions/<int:number>"

urlpatterns = [
    path(f"{VERSION}/originals", api.Originals.as_view(), name="api-originals"),
    path(f"{VERSION}/ingest", api.Start.as_view(), name="api-ingest"),
    path(f"{VERSION}/report", api.Report.as_view(), name="api-report"),
    path(f"{VERSION}/examination", api.Examination.as_view(), name="api-examination"),
    path(
        f"{VERSION}/examination/<int:item>/<str:side>.png",
        api.Picture.as_view(),
        name="api-picture",
    ),
    path(f"{VERSION}/examination/next", api.Next.as_view(), name="api-next"),
    path(f"{VERSION}/examination/<int:item>/turn", api.Turn.as_view(), name="api-turn"),
    path(f"{VERSION}/examination/<int:item>/header", api.Header.as_view(), name="api-header"),
    path(f"{VERSION}/destructions", api.Destructions.as_view(), name="api-destructions"),
    path(
        f"{VERSION}/destructions/<int:destruction>/certificate",
        api.Certificate.as_view(),
        name="api-certificate",
    ),
    path(f"{VERSION}/examination/<int:item>/finding", api.Finding.as_view(), name="api-finding"),
    path(f"{VERSION}/sign", api.Sign.as_view(), name="api-sign"),
]
