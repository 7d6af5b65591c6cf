"""A stream of files is embedded and written to Parquet on every kind of session; test_faults.py kills streams."""

import json

import pytest
from vectors import assert_embedded

from spark_instructor import InstructorEmbeddings


@pytest.fixture
def run(spark, tiny, tmp_path):
    """Return a function that embeds the new files in tmp_path/texts and returns all rows embedded so far."""
    stage = InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="vector")

    def run():
        texts = spark.readStream.schema("id int, text string").option("maxFilesPerTrigger", 1)
        writer = stage.transform(texts.json(f"{tmp_path}/texts")).writeStream.format("parquet")
        writer = writer.option("checkpointLocation", f"{tmp_path}/checkpoint").option("path", f"{tmp_path}/embedded")
        query = writer.trigger(availableNow=True).start()
        assert query.awaitTermination(120)
        return spark.read.parquet(f"{tmp_path}/embedded").orderBy("id").collect()

    return run


def test_every_row_once(run, tiny_model, tmp_path):
    def arrive(number, texts):
        rows = "\n".join(json.dumps({"id": i, "text": text}) for i, text in texts.items())
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{number}.json").write_text(rows)

    texts = {0: "one", 1: None, 2: "", 3: "two", 4: "one", 5: "three"}
    arrive(1, {i: texts[i] for i in (0, 1, 2)})
    arrive(2, {i: texts[i] for i in (3, 4)})
    assert [row.id for row in run()] == [0, 1, 2, 3, 4]
    arrive(3, {5: texts[5]})
    rows = run()
    assert {row.id: row.text for row in rows} == texts and len(rows) == len(texts)
    assert_embedded(tiny_model, "", texts.values(), [row.vector for row in rows])
