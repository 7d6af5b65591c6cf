"""A stage as a user would write it: it has only Params and is saved the way pyspark's documentation recommends."""

from pyspark.ml import Transformer
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable


class Renamer(Transformer, HasInputCol, HasOutputCol, DefaultParamsReadable, DefaultParamsWritable):
    """Rename a column."""

    def _transform(self, dataset):
        return dataset.withColumnRenamed(self.getInputCol(), self.getOutputCol())
