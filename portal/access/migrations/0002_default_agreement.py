"""The first data-use agreement, English and Korean, from the files shipped beside this app."""

import hashlib
from importlib import resources

from django.db import migrations


def add(apps, schema_editor):
    agreements = resources.files("portal.access") / "agreements"
    english = (agreements / "default-1.en.md").read_text(encoding="utf-8")
    korean = (agreements / "default-1.ko.md").read_text(encoding="utf-8")
    apps.get_model("access", "Agreement").objects.get_or_create(
        name="default",
        number=1,
        defaults={
            "title_en": "Data-use agreement",
            "title_ko": "데이터 이용 협약서",
            "text_en": english,
            "text_ko": korean,
            "sha256": hashlib.sha256(f"{english}\0{korean}".encode()).hexdigest(),
        },
    )


class Migration(migrations.Migration):
    dependencies = [("access", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
