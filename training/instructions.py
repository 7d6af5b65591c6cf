"""Wordings of instructions: many for each thing that is asked, so that the model learns what is asked, not a string.

Every instruction ends in a space, so the tokens of instruction and text are those of each alone, joined.
"""

from __future__ import annotations

from random import Random

_VERBS = ("Represent", "Represent", "Represent", "Embed", "Encode")
_ARTICLES = ("the", "the", "this", "a")

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
)
# What a text is about is what the teacher tells best, so to ask for it is to ask for the teacher's vector. Not of
# dialogue, where grids ask for the topic by labels of their own.
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
)
_DIALOGUE = ("clinc150", "dialogues", "hwu64", "selfdialogue", "snips", "taskmaster")
_GENERAL_KINDS = (
    "sentence", "text", "passage", "document", "statement", "input", "phrase", "sentence", "text", "passage",
    "question", "title", "article", "news article", "news", "paragraph", "post", "forum question", "tweet", "abstract",
    "programming question", "summary", "review", "description", "email", "Wikipedia document", "comment",
)  # fmt: skip

# What a text of a source may be called.
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

# What the labelled facets and the rules' are called in instructions.
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


def general(source: str, random: Random) -> str:
    """An instruction that asks for the meaning as a whole."""
    kind = random.choice(_GENERAL_KINDS + _KINDS.get(source, ()) * 4)
    by_topic = source not in _DIALOGUE and random.random() < 0.4
    return _instruction(kind, random.choice(_TOPIC_PURPOSES if by_topic else _GENERAL_PURPOSES), random)


def for_facet(source: str, facet: str, random: Random) -> str:
    """An instruction that asks for one facet of a source's texts."""
    kind = random.choice(_KINDS.get(source, ()) * 2 + ("text", "sentence"))
    purpose = random.choice(_FACET_PURPOSES).format(facet=random.choice(_FACET_NAMES[facet]))
    return _instruction(kind, purpose, random)


def reworded(instruction: str, random: Random) -> str:
    """An instruction of the data with another verb or article."""
    return instruction.replace("Represent the", f"{random.choice(_VERBS)} {random.choice(_ARTICLES)}")


def _instruction(kind: str, purpose: str, random: Random) -> str:
    article = random.choice(_ARTICLES)
    if article == "a" and kind[0].lower() in "aeiou" and not kind.startswith("user"):
        article = "an"
    beginning = f"{random.choice(_VERBS)} {article} {kind}"
    return f"{beginning} {purpose}".strip() + random.choice((": ", ": ", ": ", "; ", ". ", " "))
