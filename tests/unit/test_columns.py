"""Checks of column names and column types."""

import pytest
from pyspark.sql.types import ArrayType, FloatType, StringType, StructField

from spark_instructor.columns import check_type, is_same_type, quote_name
from spark_instructor.stages.annotation import ANNOTATIONS


def test_quote_name():
    assert [quote_name(name) for name in ("text", "a.b c", "back`tick")] == ["`text`", "`a.b c`", "`back``tick`"]


def test_types_are_compared_without_nullability():
    assert is_same_type(ArrayType(FloatType(), True), ArrayType(FloatType(), False))
    assert not is_same_type(ArrayType(FloatType()), ArrayType(StringType()))


def test_wrong_type_names_the_column():
    check_type(StructField("column", StringType()), [StringType(), ANNOTATIONS], "Stage")
    message = "Stage: column 'column' is array<float>, expected string or array of annotations"
    with pytest.raises(ValueError, match=message):
        check_type(StructField("column", ArrayType(FloatType())), [StringType(), ANNOTATIONS], "Stage")
