# ruff: noqa: SIM905 - word lists are written as words, one after the other
"""What is true in the small world: opposites, plurals, past tenses, kinds, colours, spellings, as data.

The same tables feed the fact sentences of the documents and the questions of the instructions.
"""

from __future__ import annotations

from typing import Final

# Each word stands in one pair only, so every opposite has one answer.
OPPOSITES: Final = tuple(
    (pair.split("/")[0], pair.split("/")[1])
    for pair in """hot/cold big/small tall/short fast/slow light/dark happy/sad old/new wet/dry hard/soft full/empty
    open/closed strong/weak rich/poor early/late loud/quiet clean/dirty thick/thin wide/narrow deep/shallow high/low
    near/far left/right day/night good/bad brave/cowardly sweet/sour rough/smooth cheap/expensive""".split()
)

PLURALS: Final = dict(
    pair.split("/")
    for pair in """mouse/mice goose/geese foot/feet tooth/teeth man/men woman/women child/children ox/oxen leaf/leaves
    wolf/wolves knife/knives wife/wives loaf/loaves shelf/shelves calf/calves thief/thieves sheep/sheep deer/deer
    fish/fish box/boxes bus/buses church/churches brush/brushes baby/babies pony/ponies story/stories puppy/puppies
    ball/balls house/houses key/keys boat/boats hat/hats spoon/spoons king/kings hand/hands bear/bears""".split()
)

PASTS: Final = dict(
    pair.split("/")
    for pair in """go/went see/saw eat/ate run/ran come/came give/gave take/took make/made find/found lose/lost
    ride/rode write/wrote sing/sang swim/swam drink/drank begin/began break/broke speak/spoke choose/chose fly/flew
    grow/grew throw/threw fall/fell hold/held tell/told buy/bought bring/brought think/thought teach/taught catch/caught
    sleep/slept keep/kept feel/felt play/played open/opened cook/cooked dance/danced call/called""".split()
)

KINDS: Final = {
    "bird": "robin eagle owl sparrow".split(),
    "fish": "trout shark herring tuna".split(),
    "insect": "ant bee beetle moth".split(),
    "fruit": "apple banana cherry grape".split(),
    "vegetable": "carrot onion cabbage turnip".split(),
    "tree": "oak pine birch willow".split(),
    "flower": "rose tulip daisy lily".split(),
    "tool": "hammer saw drill spade".split(),
    "instrument": "piano violin flute drum".split(),
    "vehicle": "car bus lorry train".split(),
    "furniture": "chair table sofa bed".split(),
    "building": "house church castle barn".split(),
}

COLOUR_OF: Final = {
    "yellow": "lemon canary chick sunflower".split(),
    "red": "tomato strawberry poppy ladybird".split(),
    "green": "frog leaf cucumber lettuce".split(),
    "blue": "kingfisher bluebell sapphire sea".split(),
    "white": "snowflake swan egg tooth".split(),
    "black": "crow raven tyre panther".split(),
    "brown": "bear chestnut potato acorn".split(),
    "orange": "pumpkin tangerine goldfish fox".split(),
    "grey": "elephant mouse donkey rhino".split(),
    "pink": "flamingo pig salmon prawn".split(),
}

SPELLED: Final = tuple(
    """cat pig hen bee owl cup key bed sea map pot egg milk fish duck wolf lion tree rose corn bread lemon lamp
    ship bell kite doll baby foot rain moon lake""".split()
)

# The words that are sorted: short, common, many first letters.
SORTED: Final = tuple(
    """ant axe bear boat car coat dog duck egg farm frog gate hat horse ink jam jug king lamp lion milk nest nut oil
    pan pig quilt ring seed sun tent van wall wolf yarn zoo""".split()
)

# Verbs for "make it past" and for habits: he walks, he walked.
HABITS: Final = dict(
    pair.split("/")
    for pair in """walks/walked runs/ran goes/went drives/drove rides/rode hurries/hurried hops/hopped jumps/jumped
    dances/danced climbs/climbed swims/swam flies/flew sings/sang plays/played sleeps/slept reads/read works/worked
    eats/ate waits/waited sits/sat stands/stood cooks/cooked paints/painted laughs/laughed smiles/smiled
    shouts/shouted rests/rested studies/studied cries/cried hides/hid""".split()
)
