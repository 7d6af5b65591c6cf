"""Checks of column names and column types."""

import pytest
from pyspark.sql.types import (
    ArrayType,
    CharType,
    FloatType,
    IntegerType,
    MapType,
    NullType,
    StringType,
    StructField,
    StructType,
    VarcharType,
)

from spark_instructor.columns import check_type, is_same_type, quote_name, to_plain_type
from spark_instructor.stages.annotation import ANNOTATIONS


def test_quote_name():
    assert [quote_name(name) for name in ("text", "a.b c", "back`tick")] == ["`text`", "`a.b c`", "`back``tick`"]


def test_types_are_compared_without_nullability():
    assert is_same_type(ArrayType(FloatType(), True), ArrayType(FloatType(), False))
    assert not is_same_type(ArrayType(FloatType()), ArrayType(StringType()))


def test_plain_types():
    strings = [StringType(), CharType(2), VarcharType(2), NullType()]
    for string in strings:
        assert to_plain_type(string) == StringType()
        assert to_plain_type(ArrayType(string, False)) == ArrayType(StringType(), False)
        nested = StructType([StructField("m", MapType(string, ArrayType(string), False), False)])
        plain = StructType([StructField("m", MapType(StringType(), ArrayType(StringType()), False), False)])
        assert to_plain_type(nested) == plain
    assert to_plain_type(IntegerType()) == IntegerType()


def test_wrong_type_names_the_column():
    check_type(StructField("column", StringType()), [StringType(), ANNOTATIONS], "Stage")
    message = "Stage: column 'column' is array<float>, expected string or array of annotations"
    with pytest.raises(ValueError, match=message):
        check_type(StructField("column", ArrayType(FloatType())), [StringType(), ANNOTATIONS], "Stage")
