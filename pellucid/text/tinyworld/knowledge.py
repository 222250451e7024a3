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
    open/closed
    strong/weak rich/poor early/late loud/quiet clean/dirty thick/thin wide/narrow deep/shallow high/low near/far
    heavy/weightless up/down left/right in/out over/under before/after first/last day/night good/bad true/false
    easy/difficult brave/cowardly sweet/sour rough/smooth sharp/blunt cheap/expensive safe/dangerous young/aged
    alive/dead""".split()
)

PLURALS: Final = dict(
    pair.split("/")
    for pair in """mouse/mice goose/geese foot/feet tooth/teeth man/men woman/women child/children ox/oxen leaf/leaves
    wolf/wolves
    knife/knives wife/wives life/lives loaf/loaves shelf/shelves half/halves calf/calves thief/thieves sheep/sheep
    deer/deer fish/fish box/boxes bus/buses church/churches brush/brushes bench/benches baby/babies pony/ponies
    story/stories puppy/puppies echo/echoes ball/balls house/houses key/keys girl/girls boat/boats hat/hats
    spoon/spoons table/tables pear/pears cake/cakes river/rivers king/kings hand/hands nose/noses coin/coins
    kite/kites bear/bears""".split()
)

PASTS: Final = dict(
    pair.split("/")
    for pair in """go/went see/saw eat/ate run/ran come/came give/gave take/took make/made find/found lose/lost hide/hid
    ride/rode
    write/wrote sing/sang swim/swam drink/drank begin/began break/broke speak/spoke wake/woke choose/chose fly/flew
    grow/grew know/knew throw/threw draw/drew blow/blew fall/fell hold/held tell/told sell/sold buy/bought
    bring/brought think/thought teach/taught catch/caught fight/fought sleep/slept keep/kept feel/felt lead/led
    let/let play/played open/opened cook/cooked hurry/hurried study/studied drop/dropped dance/danced move/moved
    call/called""".split()
)

KINDS: Final = {
    "bird": "robin eagle owl sparrow pigeon".split(),
    "fish": "salmon trout shark herring tuna".split(),
    "insect": "ant bee beetle moth wasp".split(),
    "fruit": "apple pear banana cherry grape".split(),
    "vegetable": "carrot potato onion cabbage turnip".split(),
    "tree": "oak pine birch willow maple".split(),
    "flower": "rose tulip daisy lily violet".split(),
    "tool": "hammer saw drill spade rake".split(),
    "instrument": "piano violin flute drum guitar".split(),
    "container": "bucket jar bottle barrel basket".split(),
    "vehicle": "car bus lorry train tram".split(),
    "toy": "doll kite puzzle marble balloon".split(),
    "furniture": "chair table sofa bed desk".split(),
    "garment": "shirt coat skirt jacket sweater".split(),
    "building": "house church castle barn school".split(),
}

COLOUR_OF: Final = {
    "yellow": "lemon banana canary chick sunflower".split(),
    "red": "tomato strawberry cherry ladybird poppy".split(),
    "green": "frog leaf cucumber pea lettuce".split(),
    "blue": "kingfisher bluebird bluebell sapphire cornflower".split(),
    "white": "snowflake swan egg tooth daisy".split(),
    "black": "crow raven blackbird tyre panther".split(),
    "brown": "bear chestnut potato acorn walnut".split(),
    "orange": "carrot pumpkin tangerine goldfish fox".split(),
    "grey": "elephant mouse donkey rhino pigeon".split(),
    "pink": "flamingo pig salmon blossom prawn".split(),
    "purple": "plum grape crocus aubergine amethyst".split(),
}

SPELLED: Final = tuple(
    """cat pig hen bee owl cup key bed bus sea map pot egg milk fish duck wolf lion tree rose corn rice bread lemon
    plum nut lamp wall ship train bell horn kite doll coat sock king baby foot ear leg rain wind moon lake
    road""".split()
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
