"""A stage that users write themselves: Params alone, saved as pyspark's documentation says."""

from pyspark.ml import Transformer
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable


class Renamer(Transformer, HasInputCol, HasOutputCol, DefaultParamsReadable, DefaultParamsWritable):
    """Renames a column."""

    def _transform(self, dataset):
        return dataset.withColumnRenamed(self.getInputCol(), self.getOutputCol())
