"""Compose instructions, with many wordings per task, so that the model learns what is asked and not a fixed string.

An instruction names the facet or asks for it in a clause. It has INSTRUCTOR's form ("Represent the ... for ...: ") or
another form, and ends in a colon and a space or in another way. The instructions of the evaluation are never composed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

_VERBS = ("Represent", "Represent", "Represent", "Embed", "Encode")
_ARTICLES = ("the", "the", "this", "a")
_ENDINGS = {": ": 46, ":": 20, "; ": 6, ";": 2, ". ": 6, ".": 3, " ": 6, "; Input: ": 4, " - ": 2, "": 2}
_FREE_SHARE = 0.35  # share of instructions that do not have INSTRUCTOR's form
_QUESTION_SHARE = 0.35  # share of instructions that ask for a facet in a clause, if it has clauses
_VALUES_SHARE = 0.15  # share of instructions that list values of a facet instead of naming it

_FACET_PURPOSES = (
    "for classifying its {facet}",
    "for classifying {facet}",
    "for classifying the {facet}",
    "for classifying it by {facet}",
    "for classification by {facet}",
    "for {facet} classification",
    "for grouping by {facet}",
    "for grouping it by the {facet}",
    "for clustering by {facet}",
    "for identifying its {facet}",
    "for identifying the {facet}",
    "for detecting its {facet}",
    "for predicting the {facet}",
    "for retrieving others with the same {facet}",
    "for finding texts that share its {facet}",
    "according to its {facet}",
    "by its {facet}",
    "to tell its {facet}",
    "and focus on its {facet}",
    "considering only the {facet}",
    "for {facet} detection",
    "for telling the {facet}",
    "for sorting by {facet}",
    "for deciding which {facet} it has",
    "for comparing the {facet}",
    "for finding out the {facet}",
    "so that the {facet} decides",
    "so that texts with the same {facet} are near",
    "so that those with one {facet} are close",
    "whatever else it says than its {facet}",
    "for separating texts that differ in {facet}",
    "for recognizing the {facet}",
    "for labeling the {facet}",
    "for labeling it with its {facet}",
    "for organizing by {facet}",
    "for arranging by the {facet}",
    "for retrieving texts of the same {facet}",
    "for retrieval of others with its {facet}",
    "for matching by {facet}",
    "for routing by {facet}",
    "with regard to its {facet}",
    "in terms of {facet}",
    "from the point of view of its {facet}",
    "where only the {facet} matters",
    "with attention to the {facet} alone",
    "keeping its {facet} and nothing else",
    "for recognition of the {facet}",
    "for analysis of its {facet}",
    "for an index by {facet}",
    "for similarity in {facet}",
)

_QUESTION_PURPOSES = (
    "for telling {question}",
    "for finding out {question}",
    "for classifying {question}",
    "for deciding {question}",
    "for grouping by {question}",
    "for clustering by {question}",
    "for sorting by {question}",
    "for identifying {question}",
    "for determining {question}",
    "for comparing {question}",
    "for searching by {question}",
    "according to {question}",
    "by {question}",
    "to show {question}",
    "and focus on {question}",
    "considering only {question}",
    "depending on {question}",
    "so that those that agree in {question} are near",
    "in view of {question}",
)

_FREE_FACETS = (
    "Classify the {kind} by {facet}",
    "Classify this {kind} by its {facet}",
    "Identify the {facet} of the {kind}",
    "Identify the {facet}",
    "Group {kinds} by {facet}",
    "Group the {kinds} by their {facet}",
    "Cluster {kinds} by {facet}",
    "Find {kinds} with the same {facet}",
    "Find other {kinds} that share its {facet}",
    "Retrieve {kinds} of the same {facet}",
    "Focus on the {facet} of this {kind}",
    "Focus on the {facet}",
    "Look only at the {facet}",
    "Given a {kind}, tell its {facet}",
    "Given a {kind}, retrieve {kinds} with the same {facet}",
    "Instruct: Classify the {facet} of the given {kind}. Query",
    "The {facet} of the {kind}",
    "{facet}",
    "{facet} classification",
    "{kind} {facet}",
    "Which {facet} does this {kind} have",
    "What is the {facet} of this {kind}",
    "Two {kinds} are similar if their {facet} is the same",
    "Compare {kinds} by {facet}",
    "Sort {kinds} by {facet}",
    "Ignore everything but the {facet}",
    "Only the {facet} matters",
    "I want to group {kinds} by {facet}",
)
_FREE_QUESTIONS = (
    "Tell {question}",
    "Find out {question}",
    "Decide {question}",
    "Focus on {question}",
    "Focus only on {question}",
    "Given a {kind}, determine {question}",
    "Group {kinds} by {question}",
    "Cluster {kinds} by {question}",
    "Classify the {kind} by {question}",
    "Say {question}",
    "I want to know {question}",
    "Judge {kinds} by {question}",
    "Instruct: Given a {kind}, find out {question}. Query",
    "All that counts is {question}",
)

_VALUES_PURPOSES = (
    "for classifying it as {values}",
    "for classification into {values}",
    "for telling {values} apart",
    "for deciding between {values}",
    "for sorting into {values}",
    "to tell whether it is {values}",
    "so that {values} are kept apart",
    "by its class: {values}",
)
_FREE_VALUES = (
    "Classify the {kind} as {values}",
    "Classify {kinds} into {values}",
    "Sort {kinds} into {values}",
    "Tell {values} apart",
    "{values}",
    "{values} or something else",
    "Which of these is the {kind}: {values}",
    "What is this {kind}: {values}",
    "Instruct: Classify the {kind} as one of {values}. Query",
)

_GENERAL_PURPOSES = (
    "",
    "",
    "for retrieval",
    "for semantic similarity",
    "for measuring semantic similarity",
    "for clustering",
    "for search",
    "for semantic search",
    "for classification",
    "by its meaning",
    "for finding texts of similar meaning",
    "for retrieving duplicates",
    "for retrieving paraphrases",
    "for retrieving similar texts",
    "for comparison",
    "for retrieving supporting documents",
    "for retrieving relevant documents",
    "for retrieving relevant passages",
    "for retrieving semantically similar sentences",
    "for retrieving duplicate questions",
    "for retrieving answers",
    "for finding an answer",
    "for question answering",
    "for deduplication",
    "for reranking",
    "for recommendation",
    "for indexing",
    "for finding the closest match",
    "for nearest neighbor search",
    "for comparing what it says",
    "so that it can be found",
    "as a whole",
    "for scoring how similar two texts are",
    "for rating the similarity of two texts",
    "for measuring how close two texts are in meaning",
    "for telling whether two texts say the same",
    "for deciding if two texts mean the same",
    "for finding texts that say the same",
    "for paraphrase detection",
    "for textual similarity",
    "to see how much two texts agree",
)
_FREE_GENERAL = (
    "Retrieve similar {kinds}",
    "Retrieve semantically similar {kinds}",
    "Find {kinds} that mean the same",
    "Find similar {kinds}",
    "Given a {kind}, retrieve relevant passages",
    "Given a {kind}, retrieve {kinds} that answer it",
    "Instruct: Given a {kind}, retrieve relevant passages that answer the query. Query",
    "query",
    "passage",
    "search_query",
    "search_document",
    "{kind}",
    "The meaning of the {kind}",
    "Measure the semantic similarity of {kinds}",
    "Compare {kinds} by meaning",
    "Rate how similar two {kinds} are",
    "Tell how near two {kinds} are in meaning",
    "Do two {kinds} say the same",
    "Which {kinds} mean the same as this {kind}",
    "{kind} for search",
)
# Default instructions of libraries, and examples from INSTRUCTOR's paper and model card.
_KNOWN = (
    "Represent the document for retrieval",
    "Represent the question for retrieval",
    "Represent the query for retrieval",
    "Represent the question for retrieving supporting documents",
    "Represent the document for retrieval",
    "Represent the sentence for retrieving semantically similar sentences",
    "Represent the Science title",
    "Represent the Science sentence",
    "Represent the Financial statement",
    "Represent the Medicine sentence for retrieving a duplicate sentence",
    "Represent the Medicine sentence for clustering",
    "Represent the Medicine statement for retrieval",
    "Represent the Science statement",
    "Represent the News article for retrieval",
    "Represent the Reddit post for retrieval",
    "Represent the following sentence",
    "Represent this sentence for searching relevant passages",
    "Represent the natural language",
    "Represent the sentence for similarity",
)
# The teacher distinguishes best what a text is about, so its vector is also the target if an instruction asks for the
# topic. Dialogue is excluded: there, grids ask for the topic with labels of their own.
_TOPIC_PURPOSES = (
    "for clustering by topic",
    "for grouping by topic",
    "for classifying its topic",
    "for topic classification",
    "by its topic",
    "by what it is about",
    "for clustering by subject",
    "for finding others on the same topic",
    "for retrieving texts about the same thing",
    "for clustering by theme",
    "for classifying its category",
    "for clustering by category",
    "for telling what it is about",
    "for finding out which topic it has",
    "for sorting by topic",
    "for sorting into categories",
    "for grouping with others about the same thing",
    "for topical search",
    "for topic detection",
    "for identifying the topic",
    "for identifying its subject",
    "for assigning a tag",
    "for tagging",
    "according to its topic",
    "according to its subject matter",
    "so that texts on one topic are near",
)
_FREE_TOPICS = (
    "Identify the topic of the {kind}",
    "Identify the category of this {kind}",
    "Identify the topic or theme of the given {kinds}",
    "Group {kinds} by topic",
    "Cluster {kinds} by topic",
    "Cluster {kinds} by what they are about",
    "Classify the {kind} by topic",
    "What is this {kind} about",
    "The topic of the {kind}",
    "Find {kinds} on the same topic",
    "Find {kinds} on the same subject",
    "Tell what the {kind} is about",
    "topic",
    "subject",
)
_DIALOGUE = ("clinc150", "dialogues", "hwu64", "selfdialogue", "snips", "taskmaster")
_GENERAL_KINDS = (
    "sentence", "text", "passage", "document", "statement", "input", "phrase", "sentence", "text", "passage",
    "question", "title", "article", "news article", "news", "paragraph", "post", "forum question", "tweet", "abstract",
    "programming question", "summary", "review", "description", "email", "Wikipedia document", "comment",
)  # fmt: skip

# Nouns for the texts of each source.
_KINDS = {
    "acl": ("scientific sentence", "Science sentence", "research text"),
    "captions": ("image caption", "caption", "scene description"),
    "clinc150": ("user request", "query", "utterance", "user utterance", "message"),
    "covid-qa": ("medical text", "scientific sentence"),
    "dialogues": ("utterance", "dialogue turn", "user utterance", "conversation turn", "message", "chat turn"),
    "disflqa": ("question", "query"),
    "factbook": ("reference text", "encyclopedia entry", "country fact"),
    "fewrel": ("encyclopedia sentence", "Wikipedia sentence"),
    "goemotions": ("comment", "online comment", "post", "forum comment"),
    "gsm8k": ("math problem", "word problem"),
    "headlines": ("headline", "news headline", "news title"),
    "hwu64": ("voice command", "voice assistant command", "user request", "utterance"),
    "medquad": ("medical text", "medical sentence", "health text"),
    "medquad questions": ("medical question", "health question", "patient's question"),
    "movie_reviews": ("movie review sentence", "review sentence", "film review"),
    "nltk-inaugural": ("speech", "sentence of a speech"),
    "nltk-product_reviews_1": ("product review",),
    "nltk-product_reviews_2": ("product review",),
    "nltk-state_union": ("political speech", "sentence of a speech"),
    "openstax": ("textbook sentence", "textbook passage", "educational text"),
    "openstax-philschatz": ("textbook sentence", "textbook passage", "educational text"),
    "peps": ("technical text", "technical document"),
    "pros_cons": ("product review phrase", "product review", "review phrase"),
    "scitldr": ("scientific sentence", "abstract sentence"),
    "selfdialogue": ("chat message", "utterance", "dialogue turn", "conversation turn"),
    "sentence_polarity": ("movie review sentence", "review", "film review"),
    "snips": ("user request", "voice command", "spoken request"),
    "subjectivity": ("sentence", "movie sentence"),
    "taskmaster": ("utterance", "dialogue turn", "conversation turn", "chat message"),
    "tldr": ("command description", "command-line task", "task description"),
    "triviaqa-questions": ("question", "trivia question", "query"),
    "wordnet": ("definition", "dictionary entry", "example sentence"),
}

# Names of the facets in instructions, both labeled facets and those from rules.
_FACET_NAMES: dict[str, tuple[str, ...]] = {
    "act": (
        "speech act",
        "dialogue act",
        "conversational act",
        "communicative function",
        "type of dialogue move",
        "communicative intent",
        "kind of utterance",
        "speaker's intention",
        "illocutionary act",
        "function in the dialogue",
        "conversational move",
    ),
    "action": ("action", "requested action", "operation", "kind of request"),
    "chat_topic": ("topic", "subject", "theme", "domain", "topic of conversation", "service", "area it is about"),
    "city": ("city", "city it names", "place", "location"),
    "command_action": ("action", "operation", "kind of action"),
    "command_object": ("object", "target", "kind of object it acts on"),
    "company": ("company", "firm", "organisation"),
    "country": ("country", "nation", "country it is about"),
    "day": ("date", "day", "day it names"),
    "deed": ("activity", "action", "event shown"),
    "disease": ("disease", "condition", "disorder", "health problem", "medical condition", "diagnosis"),
    "domain": ("domain", "topic domain", "service", "area it is about", "subject area", "service area"),
    "emotion": ("emotion", "feeling", "emotion expressed", "sentiment"),
    "event": ("event", "event type", "kind of news"),
    "film_aspect": ("aspect", "aspect of the film", "what is judged"),
    "form": ("sentence type", "sentence form", "grammatical mood", "form"),
    "intent": ("intent", "user intent", "intention", "purpose"),
    "kind": ("kind of news", "news section", "section"),
    "kind of text": ("genre", "text type", "kind of text", "source", "register"),
    "length": ("length", "text length", "number of words"),
    "negation": ("polarity", "negation"),
    "numbers": ("kind of number", "quantity mentioned", "number type"),
    "paper_role": ("rhetorical role", "role in the abstract", "function in the paper", "argumentative zone"),
    "paper_topic": ("research area", "task", "field"),
    "person": ("grammatical person", "person", "perspective", "who it is about"),
    "place": ("place", "location", "setting", "scene"),
    "product_aspect": ("aspect", "product feature", "feature it is about"),
    "question_type": (
        "question type",
        "kind of information asked",
        "type of information sought",
        "kind of question",
        "aim of the question",
        "aspect asked about",
    ),
    "question_word": ("question word", "question type", "kind of answer asked for", "expected answer type"),
    "relation": ("relation", "relation between its entities", "relationship"),
    "scenario": ("scenario", "domain", "service", "topic", "area it is about", "skill"),
    "sentiment": ("sentiment", "polarity", "opinion", "attitude"),
    "service": (
        "service",
        "domain",
        "topic",
        "area of service",
        "service it is about",
        "kind of service",
        "subject",
        "app",
        "topic domain",
    ),
    "subject": ("subject it covers", "field"),
    "tense": ("tense", "grammatical tense", "time reference"),
    "time": ("time", "clock time", "time it names"),
    "trivia_topic": ("quiz category", "field"),
    "when": ("time", "date", "time reference", "when it is about"),
    "who": ("subject", "who is shown", "agent", "who is acting"),
}

# Clauses that ask for the facets without having to name them.
_FACET_QUESTIONS: dict[str, tuple[str, ...]] = {
    "act": (
        "what the speaker does by saying it",
        "what the speaker wants to achieve",
        "whether the speaker asks, tells, agrees or thanks",
        "whether it is a request, an answer or a thanks",
        "whether it asks for something, accepts it or declines it",
        "how the speaker moves the conversation on",
        "which move in the conversation it is",
        "what it does in the dialogue",
        "why the speaker says it",
        "what kind of reply it expects",
        "how it is meant in the conversation",
    ),
    "action": ("what should be done", "what the assistant has to do", "which action is asked for", "what is to happen"),
    "chat_topic": (
        "what they are talking about",
        "what the conversation is about",
        "which subject is being talked about",
        "which part of life it concerns",
    ),
    "city": ("which city it names", "where it is to take place"),
    "command_action": ("what the command does", "which action is performed"),
    "command_object": ("what the command acts on", "what is changed or shown by it"),
    "company": ("which company it is about", "who the firm is"),
    "country": ("which country it is about", "where it happens", "which nation is described"),
    "day": ("which day it names", "on which date it is"),
    "deed": ("what is being done", "what happens in the picture", "which activity it shows"),
    "disease": (
        "which disease it is about",
        "which illness the patient has",
        "what condition is meant",
        "which disorder is asked about",
        "what the patient suffers from",
    ),
    "domain": (
        "which service could handle it",
        "which area it belongs to",
        "what kind of business it concerns",
        "which department is responsible",
        "what it is about",
        "which field of service is concerned",
    ),
    "emotion": ("which emotion it expresses", "how the writer feels", "what the writer feels"),
    "event": ("what happened", "which kind of event is reported"),
    "film_aspect": ("which part of the film is judged", "what of the film it talks about"),
    "form": (
        "whether it is a question, a command or a statement",
        "whether it asks, orders or states",
        "how the sentence is formed",
    ),
    "intent": (
        "what exactly the user wants",
        "what the user is asking for",
        "which request it is",
        "what the user wants to get done",
        "which of the user's needs it expresses",
        "what has to be answered",
    ),
    "kind": ("whether it is politics, business or a disaster", "which section of a newspaper it belongs to"),
    "kind of text": ("where the text comes from", "which kind of text it is"),
    "length": ("how long it is", "whether it is long or short"),
    "negation": ("whether it says yes or no", "whether something is denied"),
    "numbers": ("which kind of number it has", "whether it names money, a year or a time"),
    "paper_role": ("what the sentence does in the paper", "whether it is background, method or result"),
    "paper_topic": ("which task the paper works on", "which research area it belongs to"),
    "person": ("who it is about, me, you or others", "in which person it is written"),
    "place": ("where it takes place", "where the scene is"),
    "product_aspect": ("which part of the product it is about", "what of the product is judged"),
    "question_type": (
        "what the question wants to know",
        "what kind of answer is wanted",
        "whether symptoms, causes or treatments are asked for",
        "which kind of information is sought",
        "what is asked about it",
    ),
    "question_word": ("whether it asks who, when, where or how many", "what kind of answer it wants"),
    "relation": ("how its two entities are related", "what connects the two names"),
    "scenario": (
        "which app should handle it",
        "which skill of the assistant is needed",
        "what it is about",
        "which area of life it concerns",
    ),
    "sentiment": ("whether it is praise or blame", "whether the writer likes it", "how favorable it is"),
    "service": (
        "which service it is about",
        "what kind of company could help",
        "which app is needed",
        "what is to be booked or found",
        "which business it concerns",
        "what the conversation is about",
        "which kind of provider is meant",
    ),
    "subject": ("what aspect of the country it covers", "which field it covers"),
    "tense": ("when it happens, in the past, now or later", "whether it is past, present or future"),
    "time": ("at what time it is", "which time it names"),
    "trivia_topic": ("which quiz category it belongs to", "which field of knowledge it needs"),
    "when": ("when it should happen", "which time it refers to"),
    "who": ("who is shown", "who is doing it"),
}


def compose_general(source: str, random: Random) -> str:
    """Compose an instruction that asks for the meaning as a whole."""

    def compose() -> str:
        if random.random() < 0.12:
            return _add_ending(random.choice(_KNOWN), random)
        kind = random.choice(_GENERAL_KINDS + _KINDS.get(source, ()) * 4)
        if source not in _DIALOGUE and random.random() < 0.4:
            return _compose_instruction(kind, _TOPIC_PURPOSES, _FREE_TOPICS, random)
        return _compose_instruction(kind, _GENERAL_PURPOSES, _FREE_GENERAL, random)

    return _avoid_evaluated(compose)


def compose_for_facet(source: str, facet: str, values: Sequence[str], random: Random) -> str:
    """Compose an instruction that asks for one facet of a source's texts, which has these values."""

    def compose() -> str:
        kind = random.choice(_KINDS.get(source, ()) * 2 + ("text", "sentence"))
        questions = _FACET_QUESTIONS.get(facet, ())
        form = random.random()
        if form < _VALUES_SHARE:
            some = random.sample(values, min(len(values), random.randint(2, 6)))
            return _compose_instruction(kind, _VALUES_PURPOSES, _FREE_VALUES, random, values=_enumerate(some, random))
        if questions and form < _VALUES_SHARE + _QUESTION_SHARE:
            question = random.choice(questions)
            return _compose_instruction(kind, _QUESTION_PURPOSES, _FREE_QUESTIONS, random, question=question)
        return _compose_instruction(
            kind, _FACET_PURPOSES, _FREE_FACETS, random, facet=random.choice(_FACET_NAMES[facet])
        )

    return _avoid_evaluated(compose)


def reword(instruction: str, random: Random) -> str:
    """Return an instruction of the data with another verb, article and ending."""
    beginning = f"{random.choice(_VERBS)} {random.choice(_ARTICLES)}"
    return _add_ending(instruction.rstrip(": ").replace("Represent the", beginning), random)


def _compose_instruction(
    kind: str, purposes: tuple[str, ...], free: tuple[str, ...], random: Random, **filled: str
) -> str:
    if random.random() < _FREE_SHARE:
        text = random.choice(free).format(kind=kind, kinds=_pluralize(kind), **filled)
        asks = text.startswith(("Which", "What")) and random.random() < 0.7
        return text + "? " if asks else _add_ending(text, random)
    article = random.choice(_ARTICLES)
    if article == "a" and kind[0].lower() in "aeiou" and not kind.startswith("user"):
        article = "an"
    purpose = random.choice(purposes).format(**filled)
    return _add_ending(f"{random.choice(_VERBS)} {article} {kind} {purpose}".strip(), random)


def _enumerate(values: Sequence[str], random: Random) -> str:
    """List values as people do: "a, b or c", "a, b and c" or "a, b, c"."""
    *others, last = (value.replace("_", " ") for value in values)
    return ", ".join(others) + random.choice((" or ", " and ", ", ")) + last


def _pluralize(kind: str) -> str:
    if kind.endswith(("news", "texts")):
        return kind
    return f"{kind[:-1]}ies" if kind.endswith("ry") else f"{kind}s"


def _add_ending(instruction: str, random: Random) -> str:
    return instruction + random.choices(list(_ENDINGS), list(_ENDINGS.values()))[0]


def _avoid_evaluated(compose: Callable[[], str]) -> str:
    while strip_form(instruction := compose()) in EVALUATED:
        pass
    return instruction


def strip_form(instruction: str) -> str:
    """Return an instruction in lower case and without its ending, so that only the wording counts in comparisons."""
    return instruction.lower().rstrip(" :;.?-").removesuffix("; input")


def _find_instructions(described: Any, key: str = "") -> Iterator[str]:
    if isinstance(described, str) and "instruction" in key:
        yield described
    elif isinstance(described, dict):
        for name, value in described.items():
            yield from _find_instructions(value, key if "instruction" in key else name)
    elif isinstance(described, list):
        for value in described:
            yield from _find_instructions(value, key)


_TASKS = Path(__file__).parents[1] / "benchmarks" / "tasks.json"
EVALUATED = frozenset(map(strip_form, _find_instructions(json.loads(_TASKS.read_text("utf-8")))))
"""The instructions of the evaluation."""
