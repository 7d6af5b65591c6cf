"""Rules that derive facets from a text: its form, speech act, person, tense, ...

Each rule maps a text to a label, or to None if it cannot tell. The rules make crossed grids possible for sources that
come with only one labeled facet or with none.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Rule = Callable[[str], str | None]


def _match_first(*rules: tuple[str, str], otherwise: str | None = None) -> Rule:
    """Return a rule that gives the label of the first pattern that matches."""
    compiled = [(label, re.compile(pattern, re.IGNORECASE)) for label, pattern in rules]
    return lambda text: next((label for label, pattern in compiled if pattern.search(text)), otherwise)


def _match_only(**patterns: str) -> Rule:
    """Return a rule that gives the label whose pattern matches, if exactly one pattern matches."""
    compiled = {label: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE) for label, pattern in patterns.items()}

    def rule(text: str) -> str | None:
        found = [label for label, pattern in compiled.items() if pattern.search(text)]
        return found[0] if len(found) == 1 else None

    return rule


_QUESTION = (
    r"\?\s*$|^\W*(?:(?:and|so|ok(?:ay)?|but|well|hey|olly)\W+)*(?:who|whom|whose|what|what's|whats|"
    r"when|where|why|which|how|how's|is|are|was|were|do|does|did|can|could|will|would|should|has|"
    r"have|had|am|may)\b"
)
_COMMAND = (
    r"^\W*(?:(?:please|ok(?:ay)?|hey|olly|just|now)\W+)*(?:add|arrange|ask|book|bring|buy|call|"
    r"cancel|change|check|clean|clear|close|compare|compute|convert|create|delete|describe|dim|"
    r"display|download|edit|explain|export|extract|find|forget|generate|get|give|go|help|increase|"
    r"install|let|list|look|lower|make|mark|move|open|order|pause|play|print|put|raise|rate|read|"
    r"remind|remove|repeat|replace|reserve|run|schedule|search|see|send|set|show|shut|start|stop|"
    r"switch|take|tell|transfer|turn|update|use|wake|write)\b"
)

form = _match_first(
    ("question", _QUESTION),
    ("exclamation", r"!\s*$"),
    ("command", _COMMAND),
    ("wish", r"\b(?:i (?:want|need|wish|would like)|i'd (?:like|love)|i'm looking for|i am looking for)\b"),
    otherwise="statement",
)

question_word = _match_first(
    *(
        (word, rf"^\W*(?:\w+,? )?{word}\b")
        for word in ("who", "when", "where", "why", "which", "how many", "how", "what")
    ),
    ("yes or no", r"^\W*(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have)\b"),
)

act = _match_first(
    (
        "goodbye",
        (
            r"\b(?:good ?bye|bye|see you|talk to you later|have a (?:good|great|nice|wonderful) (?:day|one|"
            r"night|evening|time))\b"
        ),
    ),
    (
        "thanks",
        r"\b(?:thanks|thank you|thankyou|appreciate (?:it|that|the|your)|you've been (?:very )?helpful|grateful)\b",
    ),
    ("greeting", r"^\W*(?:hi|hello|hey there|good (?:morning|afternoon|evening)|greetings)\b[^?]{0,25}$"),
    ("apology", r"\b(?:sorry|apologi[sz]e|my apologies|excuse me)\b"),
    (
        "ask for alternatives",
        (
            r"\b(?:anything else|something else|any others?|another (?:one|option|time|place|movie|theater)|"
            r"other (?:options?|movies?|theaters?|times?|choices?|ones?|places?|showtimes?)|different (?:one|"
            r"time|movie|place|theater)|what else|somewhere else)\b"
        ),
    ),
    ("refuse", r"^\W*(?:no|nope|nah|not really|never ?mind|i don't (?:want|think so|need)|cancel that|not now)\b"),
    (
        "choose",
        (
            r"\b(?:i'll (?:take|have|go with|see|do)|let's (?:go with|do|see|try)|(?:sounds?|looks?) (?:good|"
            r"great|perfect|fine|nice|fun)|(?:works?|fine|good|okay) (?:for|with|by) me|that (?:works|"
            r"will do|one)|i(?:'d| would) prefer|i like that)\b"
        ),
    ),
    (
        "agree",
        (
            r"^\W*(?:yes|yeah|yep|yup|sure|of course|definitely|absolutely|exactly|correct|that'?s (?:right|"
            r"correct|it)|right|ok(?:ay)?\W*$|alright\W*$|i agree|me too|i do)\b"
        ),
    ),
    (
        "offer",
        (
            r"\b(?:would you like|do you want (?:me|to)|can i (?:help|get|offer)|how can i|may i help|"
            r"shall i|should i (?:book|order|go ahead)|what can i)\b"
        ),
    ),
    (
        "confirm",
        (
            r"\b(?:(?:is|does) (?:that|this|everything) (?:right|correct|look|sound)|just to (?:confirm|"
            r"be sure)|you(?:'d| would)? (?:want|said|mean).*(?:right|correct)|so that's)\b.*\?"
        ),
    ),
    (
        "state a goal",
        (
            r"\b(?:i(?:'d| would) (?:like|love|want)|i (?:want|need|wish)|i(?:'m| am) (?:looking|trying|"
            r"hoping|interested)|we(?:'d| would) like|we (?:want|need)|(?:can|could|would|will) (?:you|i|"
            r"we) (?:please |also |just )?(?:book|buy|get|find|help|order|play|set|make|send|add|give me|"
            r"show|reserve|schedule|turn|put|remind|check|call|cancel|have|see|go)|looking for|help me)\b"
        ),
    ),
    ("ask for information", _QUESTION),
    ("command", _COMMAND),
    (
        "report a result",
        (
            r"\b(?:here (?:is|are)|your (?:order|tickets?|drink|reservation|latte|coffee)|i(?:'ve|"
            r" have)? (?:found|booked|sent|ordered|added|purchased)|there (?:is|are)|(?:is|are) (?:playing|"
            r"showing|available|ready))\b"
        ),
    ),
    (
        "give an opinion",
        (
            r"\b(?:i (?:really |just |also |personally )?(?:think|love|like|enjoy|hate|feel|believe|guess|"
            r"thought|loved|liked)|my favou?rite|in my opinion|it was (?:so|really|very|such|a great|great|"
            r"good|bad))\b"
        ),
    ),
    (
        "give a detail",
        (
            r"^\W*(?:(?:ok(?:ay)?|um|uh|well|oh|maybe|probably|about|around|make (?:it|that)|it(?:'s| is|"
            r" will be))\W+)*(?:in|at|on|for|from|to|with|by|near|after|before|around|the|just|one|two|three|"
            r"four|five|six|\d+|tonight|today|tomorrow|this|next|monday|tuesday|wednesday|thursday|friday|"
            r"saturday|sunday)\b(?=.{0,60}$)"
        ),
    ),
)

person = _match_first(
    ("first", r"\b(?:i|i'm|i've|i'd|i'll|me|my|mine|we|us|our)\b"),
    ("second", r"\b(?:you|you're|your|yours)\b"),
    ("she", r"\b(?:she|her|hers)\b"),
    ("he", r"\b(?:he|him|his)\b"),
    ("they", r"\b(?:they|them|their|theirs)\b"),
    otherwise="nobody",
)

tense = _match_only(
    past=r"was|were|did|had|went|said|made|came|took|saw|became|began|got|told|wrote|\w{3,}ed",
    future=r"will|won't|going to|gonna|'ll|shall",
    present=r"is|are|am|do|does|has|have|makes?|wants?|needs?|goes|says|can",
)

negation = _match_first(
    ("negated", r"\b(?:not|no|never|nothing|nobody|none|cannot|without)\b|n't\b"), otherwise="affirmed"
)
numbers = _match_first(
    ("money", r"[$€£]\s?\d|\b(?:dollars?|euros?|bucks|cents)\b"),
    ("percentage", r"\d ?%|\bper ?cent\b"),
    ("year", r"\b(?:1[6-9]|20)\d\d\b"),
    ("clock time", r"\b\d{1,2}(?::\d\d)? ?(?:am|pm|a\.m|p\.m|o'clock)\b"),
    ("other number", r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|hundred|thousand|million)\b"),
    otherwise="no number",
)
when = _match_only(
    today="today|tonight|this (?:morning|afternoon|evening)",
    tomorrow="tomorrow",
    yesterday="yesterday|last night",
    weekend="weekend|saturday|sunday",
    weekday="monday|tuesday|wednesday|thursday|friday",
    now="now|right away|immediately|currently",
    month="january|february|march|april|june|july|august|september|october|november|december",
    morning="morning|breakfast",
    evening="evening|dinner|night",
)


def length(text: str) -> str:
    """Return short, medium or long, by the number of words."""
    words = text.count(" ") + 1
    return "short" if words <= 6 else "medium" if words <= 14 else "long"


chat_topic = _match_only(
    movies=(
        "movies?|films?|theat(?:er|re)s?|actors?|actress|director|netflix|trailer|cinema|imdb|"
        "rotten tomatoes|showtimes?"
    ),
    music="music|songs?|albums?|bands?|concerts?|singers?|guitar|rap|lyrics|spotify",
    sports="football|nfl|quarterback|touchdown|basketball|baseball|playoffs?|super bowl|coach|season|teams?",
    coffee="coffee|latte|cappuccino|espresso|mocha|macchiato|americano|decaf|cortado|milk",
    food="restaurants?|food|pizza|dinner|lunch|burgers?|menu|taco|sushi",
    books="books?|novels?|author|reading|comics?",
    games="video games?|xbox|playstation|nintendo|gaming",
    travel="flights?|hotels?|trip|travel|airport|vacation|beach",
    family="mom|dad|kids?|son|daughter|wife|husband|parents|brother|sister",
    politics="president|trump|obama|election|congress|government|vote",
    fashion="clothes|dress|shoes|shirt|fashion|makeup",
    animals="dogs?|cats?|pets?|animals?",
)
film_aspect = _match_only(
    acting="acting|actors?|actress|performances?|cast|performers?",
    story="plot|story|script|screenplay|storyline|narrative|writing",
    humour="comedy|funny|laughs?|humou?r|jokes?|hilarious",
    picture="visual(?:ly|s)?|cinematography|special effects|effects|camera|images?|beautiful",
    music="music|soundtrack|songs?|score",
    direction="director|directed|directing|directs|filmmakers?",
    suspense="suspense|thriller|scary|horror|tension|terrifying",
    romance="romance|romantic|love",
    action="action|fights?|violence|chase",
    characters="characters?|hero|heroine|villain",
)
product_aspect = _match_only(
    battery="battery|batteries|charge|charging|charger",
    price="price|priced|cheap|expensive|cost|costs|inexpensive|affordable|value|money",
    picture="picture|pictures|photo|photos|image|images|zoom|lens|resolution|pixels?",
    sound="sound|audio|speakers?|volume|noise|loud|quiet|voice",
    size="size|small|compact|bulky|heavy|light|lightweight|weight|big|large|portable|tiny",
    ease="easy|simple|difficult|hard|confusing|complicated|intuitive|user friendly",
    software="software|drivers?|interface|menu|menus|windows|install|installation",
    speed="slow|fast|speed|quick|quickly|lag",
    looks="design|looks?|style|stylish|color|colors|attractive|ugly",
    service="service|support|customer|warranty|shipping",
    durability="durable|sturdy|break|breaks|broke|flimsy|cheaply|solid|reliable|quality construction",
    storage="memory|storage|card|capacity|hard drive",
)
trivia_topic = _match_only(
    film="films?|movies?|actor|actress|oscar|starred|director|directed",
    television="tv|television|series|sitcom|soap|episode",
    music="songs?|singer|band|album|single|hit|opera|composer|musical|sang|recorded",
    sport="football|cricket|rugby|tennis|golf|olympics?|cup|champion|championship|team|racing|boxer|formula one",
    books="novels?|book|author|wrote|poet|poem|play|shakespeare|dickens|character",
    geography="capital|city|country|river|island|lake|mountain|sea|ocean|county|located",
    history="war|battle|king|queen|century|treaty|empire|roman|emperor|revolution",
    politics="president|prime minister|politician|party|elected|minister|mp",
    science="chemical|element|planet|scientist|physics|disease|medical|species|theory|invented|bone|blood",
    animals="animal|bird|fish|dog|breed|horse|insect|mammal",
    food="food|drink|wine|cheese|fruit|dish|sauce|vegetable|cocktail|beer",
    religion="bible|saint|god|goddess|testament|religion|pope|mythology",
)
command_action = _match_first(
    *(
        (label, rf"^\W*(?:[\w.+-]+: )?(?:{pattern})\b")
        for label, pattern in {
            "list": "list",
            "show": "show|display|print|view",
            "create": "create|make|generate|build|initialize",
            "delete": "delete|remove|uninstall|clean|erase",
            "start": "start|run|launch|execute|open",
            "stop": "stop|kill|disable|pause",
            "set": "set|change|configure|edit|modify|update|rename",
            "convert": "convert|encode|decode|compress|extract|resize",
            "search": "search|find|look|query|filter",
            "copy": "copy|move|clone|download|upload|sync|fetch|send",
            "install": "install|add|enable",
            "check": "check|test|verify|compare|analy[sz]e|scan|monitor",
        }.items()
    )
)
command_object = _match_only(
    files="files?",
    directories="director(?:y|ies)|folders?",
    packages="packages?",
    images="images?|pictures?",
    containers="containers?|pods?",
    processes="process(?:es)?|jobs?",
    users="users?|accounts?|groups?",
    network="networks?|hosts?|ports?|interfaces?|dns|ip",
    repositories="repositor(?:y|ies)|branch(?:es)?|commits?",
    databases="databases?|tables?",
    keys="keys?|passwords?|certificates?|tokens?",
    disks="disks?|partitions?|volumes?|devices?",
    services="services?|servers?",
)
paper_topic = _match_only(
    translation="translation|translations|translate|bilingual",
    parsing="parsing|parsers?|parse|syntax|syntactic|treebanks?|dependency",
    questions="question answering|questions?|answers?",
    summarisation="summari[sz]ation|summar(?:y|ies)",
    sentiment="sentiment|emotions?|opinions?|hate speech|sarcasm",
    dialogue="dialogues?|conversational|conversations?|chatbots?",
    speech="speech|spoken|acoustic|audio",
    entities="entity|entities|relation extraction|knowledge graphs?",
    vision="images?|visual|vision|video|multimodal",
    language_models="language models?|llms?|gpt|bert|pre-?trained|prompts?|prompting",
    law_and_medicine="medical|clinical|biomedical|legal|patents?",
)
paper_role = _match_first(
    ("resource", r"\b(?:datasets?|corpus|corpora|benchmark|annotat|collect|resource|release)\w*\b"),
    (
        "result",
        (
            r"\b(?:outperform|achiev|improv|results? show|experiments? (?:show|demonstrate)|state-of-the-art|"
            r"accuracy|f1|gains?)\w*\b"
        ),
    ),
    (
        "proposal",
        (
            r"\b(?:we (?:propose|present|introduce|describe|develop)|this paper (?:presents|proposes|"
            r"describes|introduces))\b"
        ),
    ),
    ("background", r"\b(?:recent|recently|however|challeng|crucial|important|widely|existing)\w*\b"),
    ("analysis", r"\b(?:we (?:analy|investigate|study|explore|examine|find|show|evaluate|compare))\w*\b"),
)
