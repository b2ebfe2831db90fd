"""SQLite as the portal uses it: writers wait for each other, readers for nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.db import connection, connections, transaction

from portal.accounts.models import Organisation

pytestmark = pytest.mark.skipif(bool(os.environ.get("GLOVEBOX_POSTGRES_DB")), reason="about SQLite")


@pytest.mark.django_db(transaction=True)
def test_the_database_is_a_wal_file_with_foreign_keys() -> None:
    with connection.cursor() as cursor:
        values = [
            cursor.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "foreign_keys", "synchronous", "temp_store")
        ]
    assert values == ["wal", 1, 1, 2]  # 2: nothing spills into /tmp


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_reads_first_never_loses_an_update() -> None:
    """Deferred transactions would fail here with "database is locked" or lose counts."""
    Organisation.objects.create(name="0")
    errors: list[BaseException] = []

    def add_one() -> None:
        try:
            for _ in range(20):
                with transaction.atomic():
                    row = Organisation.objects.get()
                    Organisation.objects.update(name=str(int(row.name) + 1))
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=add_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Organisation.objects.get().name == "80"


@pytest.mark.django_db(transaction=True)
def test_a_reader_is_not_kept_waiting_by_a_writer() -> None:
    Organisation.objects.create(name="before")
    seen: list[str] = []

    def read() -> None:
        seen.append(Organisation.objects.get().name)
        connections.close_all()

    with transaction.atomic():
        Organisation.objects.update(name="after")
        reader = threading.Thread(target=read)
        reader.start()
        reader.join(timeout=20)
    assert seen == ["before"]


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "GLOVEBOX_HOME": str(tmp_path / "data"),
        "GLOVEBOX_KEYS": str(tmp_path / "keys"),
    }
    make = """
import django
django.setup()
from django.db import connection
from portal.accounts.models import Organisation
with connection.schema_editor() as editor:
    editor.create_model(Organisation)
Organisation.objects.create(name="0")
"""
    write = """
import django
django.setup()
from django.db import transaction
from portal.accounts.models import Organisation
for _ in range(50):
    with transaction.atomic():
        row = Organisation.objects.get()
        Organisation.objects.update(name=str(int(row.name) + 1))
"""
    subprocess.run([sys.executable, "-c", make], env=environment, check=True)
    writers = [subprocess.Popen([sys.executable, "-c", write], env=environment) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    read = make.split("with connection")[0] + "print(Organisation.objects.get().name)"
    done = subprocess.run(
        [sys.executable, "-c", read], env=environment, check=True, text=True, capture_output=True
    )
    assert done.stdout.strip() == "100"
