"""SentenceDetector: from documents to their sentences."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, ClassVar

from pyspark import keyword_only
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import DataFrame

from ..chunks import DOCUMENT, SENTENCE, detect_texts
from ..sentences import STRATEGIES, SentenceFinder
from ..udf import create_sentences_udf
from .cutting import Cutter, CuttingStage
from .params import AtLeast, OneOf, Self, to_strings


def to_patterns(value: Any) -> list[str]:
    """Convert one regular expression or several to a list; raise ValueError if one does not compile or matches ""."""
    patterns = to_strings(value)
    for pattern in patterns:
        try:
            matches_empty = re.match(pattern, "") is not None
        except re.error as error:
            raise ValueError(
                f"customBounds has {pattern!r}, which is not a regular expression of Python: {error}. To match "
                f"these characters themselves, pass {re.escape(pattern)!r}."
            ) from error
        if matches_empty:
            raise ValueError(
                f"customBounds has {pattern!r}, which matches an empty text, so it would end a sentence "
                "anywhere. Change it to match at least one character."
            )
    return patterns


class SentenceDetector(CuttingStage):
    """Finds the sentences of documents by rules, with the name and the parameters of Spark NLP's stage.

    The input is a column of document annotations, of strings or of arrays of strings. The output is a column of
    document annotations, one per sentence. The ``result`` is a piece of the original text, without the white space
    around it, and ``begin`` and ``end`` are its place there, in UTF-16 units, added to the ``begin`` of an annotation.
    The metadata is that of the input annotation with these entries: ``document``, the number of the document among
    those of its row, and ``sentence``, the number of the sentence in its row. An empty or blank document has no
    sentences.

    The rules are those of English. A sentence ends at ``.``, ``!``, ``?`` or ``…``, including any closing quotes and
    brackets, if white space follows. It also ends at a Chinese or Japanese full stop and at a blank line. It goes on
    after an initial, after an abbreviation (``useAbbreviations``), and after an ellipsis or a quotation if the next
    word is in lower case. An item of a list begins a sentence, and its number does not end one (``detectLists``).

    ``customBounds`` are regular expressions of Python that end a sentence as well, or alone with
    ``useCustomBoundsOnly``. What they match is left out, or begins the next sentence, or ends the one before it
    (``customBoundsStrategy``: "none", "prepend" or "append"). A sentence longer than ``splitLength`` is cut between
    words. One that is shorter than ``minLength`` or longer than ``maxLength`` is left out after that. All three are in
    UTF-16 units.

    `transform` raises ValueError on the driver if the column is missing or has the wrong type or annotatorType, if
    the output column exists already, if ``useCustomBoundsOnly`` is set without ``customBounds``, and if ``minLength``
    is more than ``maxLength`` or ``splitLength``, since every sentence would be left out.
    """

    customBounds: Param[list[str]] = Param(
        Params._dummy(), "customBounds", "regular expressions of what else ends a sentence", to_patterns
    )
    useCustomBoundsOnly: Param[bool] = Param(
        Params._dummy(), "useCustomBoundsOnly", "whether only customBounds end a sentence", TypeConverters.toBoolean
    )
    customBoundsStrategy: Param[str] = Param(
        Params._dummy(),
        "customBoundsStrategy",
        f"what happens to a custom bound: one of {', '.join(STRATEGIES)}",
        OneOf("customBoundsStrategy", STRATEGIES),
    )
    useAbbreviations: Param[bool] = Param(
        Params._dummy(), "useAbbreviations", "whether a sentence goes on after abbreviations", TypeConverters.toBoolean
    )
    detectLists: Param[bool] = Param(
        Params._dummy(), "detectLists", "whether an item of a list begins a sentence", TypeConverters.toBoolean
    )
    explodeSentences: Param[bool] = Param(
        Params._dummy(), "explodeSentences", "whether each sentence gets a row of its own", TypeConverters.toBoolean
    )
    splitLength: Param[int] = Param(
        Params._dummy(), "splitLength", "length over which a sentence is cut", AtLeast("splitLength", 1)
    )
    minLength: Param[int] = Param(
        Params._dummy(), "minLength", "length under which a sentence is left out", AtLeast("minLength", 0)
    )
    maxLength: Param[int] = Param(
        Params._dummy(), "maxLength", "length over which a sentence is left out", AtLeast("maxLength", 1)
    )

    own_metadata: ClassVar = {"document": DOCUMENT, "sentence": SENTENCE}

    @keyword_only
    def __init__(
        self,
        *,
        inputCols: str | list[str] | None = None,
        outputCol: str | None = None,
        customBounds: str | list[str] | None = None,
        useCustomBoundsOnly: bool | None = None,
        customBoundsStrategy: str | None = None,
        useAbbreviations: bool | None = None,
        detectLists: bool | None = None,
        explodeSentences: bool | None = None,
        splitLength: int | None = None,
        minLength: int | None = None,
        maxLength: int | None = None,
        lazyAnnotator: bool | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(
            customBounds=[],
            useCustomBoundsOnly=False,
            customBoundsStrategy="none",
            useAbbreviations=True,
            detectLists=True,
            explodeSentences=False,
            minLength=0,
            maxLength=99999,
        )
        self._set(**self._input_kwargs)

    def setCustomBounds(self: Self, value: str | list[str] | tuple[str, ...]) -> Self:
        """Set one regular expression, or several, of what else ends a sentence.

        Raises ValueError if one of them is invalid or matches an empty text.
        """
        return self._set(customBounds=value)

    def getCustomBounds(self) -> list[str]:
        """Return the regular expressions of what else ends a sentence."""
        return self.getOrDefault(self.customBounds)

    def setUseCustomBoundsOnly(self: Self, value: bool) -> Self:
        """Set whether only ``customBounds`` end a sentence."""
        return self._set(useCustomBoundsOnly=value)

    def getUseCustomBoundsOnly(self) -> bool:
        """Return whether only ``customBounds`` end a sentence."""
        return self.getOrDefault(self.useCustomBoundsOnly)

    def setCustomBoundsStrategy(self: Self, value: str) -> Self:
        """Set what happens to a custom bound: "none" leaves it out, "prepend" and "append" keep it.

        It begins the next sentence ("prepend") or ends the one before it ("append"). Raises ValueError for another
        value.
        """
        return self._set(customBoundsStrategy=value)

    def getCustomBoundsStrategy(self) -> str:
        """Return what happens to a custom bound: "none", "prepend" or "append"."""
        return self.getOrDefault(self.customBoundsStrategy)

    def setUseAbbreviations(self: Self, value: bool) -> Self:
        """Set whether a sentence goes on after an abbreviation."""
        return self._set(useAbbreviations=value)

    def getUseAbbreviations(self) -> bool:
        """Return whether a sentence goes on after an abbreviation."""
        return self.getOrDefault(self.useAbbreviations)

    def setDetectLists(self: Self, value: bool) -> Self:
        """Set whether an item of a list begins a sentence, and its number does not end one."""
        return self._set(detectLists=value)

    def getDetectLists(self) -> bool:
        """Return whether an item of a list begins a sentence."""
        return self.getOrDefault(self.detectLists)

    def setExplodeSentences(self: Self, value: bool) -> Self:
        """Set whether each sentence gets a row of its own; rows without sentences are then left out."""
        return self._set(explodeSentences=value)

    def getExplodeSentences(self) -> bool:
        """Return whether each sentence gets a row of its own."""
        return self.getOrDefault(self.explodeSentences)

    def setSplitLength(self: Self, value: int) -> Self:
        """Set the length over which a sentence is cut between words. Raises ValueError if it is less than 1."""
        return self._set(splitLength=value)

    def getSplitLength(self) -> int | None:
        """Return the length over which a sentence is cut, or None."""
        return self._get(self.splitLength)

    def setMinLength(self: Self, value: int) -> Self:
        """Set the length under which a sentence is left out. Raises ValueError if it is negative."""
        return self._set(minLength=value)

    def getMinLength(self) -> int:
        """Return the length under which a sentence is left out."""
        return self.getOrDefault(self.minLength)

    def setMaxLength(self: Self, value: int) -> Self:
        """Set the length over which a sentence is left out. Raises ValueError if it is less than 1."""
        return self._set(maxLength=value)

    def getMaxLength(self) -> int:
        """Return the length over which a sentence is left out."""
        return self.getOrDefault(self.maxLength)

    def is_exploded(self) -> bool:
        """Return whether each sentence gets a row of its own."""
        return self.getExplodeSentences()

    def create_udf(self, dataset: DataFrame) -> Any:
        """Return the UDF that finds the sentences in arrays of texts."""
        return create_sentences_udf(self._create_finder())

    def create_cutter(self) -> Cutter:
        """Return the function that finds the sentences of a row on the driver."""
        return partial(detect_texts, self._create_finder())

    def _create_finder(self) -> SentenceFinder:
        if self.getUseCustomBoundsOnly() and not self.getCustomBounds():
            raise ValueError(
                "SentenceDetector: useCustomBoundsOnly is True, but customBounds is empty, so no sentence would end. "
                "Call setCustomBounds([...]) with regular expressions."
            )
        for name, limit in (("maxLength", self.getMaxLength()), ("splitLength", self.getSplitLength())):
            if limit is not None and limit < self.getMinLength():
                raise ValueError(
                    f"SentenceDetector: minLength is {self.getMinLength()}, but {name} is {limit}, so every sentence "
                    f"would be left out. Set a minLength of at most {limit}."
                )
        return SentenceFinder(
            custom_bounds=tuple(self.getCustomBounds()),
            use_custom_bounds_only=self.getUseCustomBoundsOnly(),
            custom_bounds_strategy=self.getCustomBoundsStrategy(),
            use_abbreviations=self.getUseAbbreviations(),
            detect_lists=self.getDetectLists(),
            split_length=self.getSplitLength(),
            min_length=self.getMinLength(),
            max_length=self.getMaxLength(),
        )
