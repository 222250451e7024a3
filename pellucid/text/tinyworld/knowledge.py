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
    near/far heavy/weightless up/down left/right in/out over/under before/after first/last day/night good/bad
    true/false easy/difficult brave/cowardly sweet/sour rough/smooth sharp/blunt cheap/expensive safe/dangerous
    young/aged alive/dead awake/asleep always/never more/less push/pull give/take buy/sell win/lose love/hate
    laugh/cry start/stop north/south east/west friend/enemy war/peace question/answer begin/end float/sink
    remember/forget polite/rude straight/crooked tight/loose wild/tame front/back inside/outside summer/winter
    sunrise/sunset arrive/leave build/destroy lazy/busy whole/broken cruel/kind wise/foolish""".split()
)

PLURALS: Final = dict(
    pair.split("/")
    for pair in """mouse/mice goose/geese foot/feet tooth/teeth man/men woman/women child/children ox/oxen leaf/leaves
    wolf/wolves knife/knives wife/wives life/lives loaf/loaves shelf/shelves half/halves calf/calves thief/thieves
    sheep/sheep deer/deer fish/fish person/people box/boxes fox/foxes bus/buses dish/dishes church/churches
    watch/watches brush/brushes glass/glasses bench/benches city/cities baby/babies lady/ladies pony/ponies
    berry/berries story/stories fly/flies puppy/puppies family/families cherry/cherries potato/potatoes tomato/tomatoes
    hero/heroes echo/echoes cat/cats dog/dogs ball/balls book/books tree/trees house/houses horse/horses bird/birds
    key/keys toy/toys boy/boys girl/girls day/days car/cars boat/boats shoe/shoes sock/socks hat/hats ring/rings
    cup/cups spoon/spoons plate/plates chair/chairs table/tables lamp/lamps apple/apples pear/pears lemon/lemons
    egg/eggs cake/cakes flower/flowers stone/stones river/rivers star/stars cloud/clouds king/kings queen/queens
    farmer/farmers hand/hands eye/eyes ear/ears nose/noses letter/letters stamp/stamps coin/coins shell/shells
    drum/drums kite/kites frog/frogs duck/ducks bear/bears""".split()
)

PASTS: Final = dict(
    pair.split("/")
    for pair in """go/went see/saw eat/ate run/ran come/came give/gave take/took make/made find/found lose/lost
    hide/hid ride/rode write/wrote sing/sang swim/swam drink/drank begin/began break/broke speak/spoke wake/woke
    choose/chose fly/flew grow/grew know/knew throw/threw draw/drew blow/blew fall/fell hold/held tell/told sell/sold
    buy/bought bring/brought think/thought teach/taught catch/caught fight/fought sleep/slept keep/kept feel/felt
    leave/left meet/met sit/sat stand/stood win/won get/got forget/forgot dig/dug hear/heard say/said pay/paid
    build/built send/sent spend/spent shake/shook drive/drove rise/rose steal/stole wear/wore bite/bit feed/fed
    lead/led cut/cut put/put let/let walk/walked jump/jumped play/played help/helped look/looked open/opened
    paint/painted clean/cleaned cook/cooked wash/washed carry/carried hurry/hurried cry/cried try/tried study/studied
    stop/stopped hop/hopped drop/dropped plan/planned love/loved dance/danced bake/baked smile/smiled move/moved
    climb/climbed laugh/laughed call/called""".split()
)

KINDS: Final = {
    "bird": "robin eagle owl sparrow pigeon crow swan parrot stork hawk raven".split(),
    "fish": "salmon trout shark herring tuna cod carp eel".split(),
    "insect": "ant bee beetle moth wasp butterfly mosquito cricket".split(),
    "fruit": "apple pear banana cherry grape peach plum mango melon lemon".split(),
    "vegetable": "carrot potato onion cabbage turnip spinach radish leek pumpkin".split(),
    "tree": "oak pine birch willow maple elm cedar beech".split(),
    "flower": "rose tulip daisy lily violet poppy orchid sunflower".split(),
    "tool": "hammer saw drill spade rake chisel shovel axe".split(),
    "instrument": "piano violin flute drum guitar trumpet harp cello".split(),
    "container": "bucket jar bottle barrel basket sack jug crate".split(),
    "vehicle": "car bus lorry train tram bicycle scooter taxi".split(),
    "toy": "doll kite puzzle marble balloon rattle yoyo teddy".split(),
    "furniture": "chair table sofa bed desk stool cupboard bench".split(),
    "garment": "shirt coat skirt jacket sweater dress scarf glove".split(),
    "building": "house church castle barn school hospital museum tower".split(),
}

COLOUR_OF: Final = {
    "yellow": "lemon banana canary chick sunflower duckling daffodil dandelion".split(),
    "red": "tomato strawberry cherry ladybird poppy brick lobster beetroot raspberry".split(),
    "green": "frog leaf cucumber pea lettuce lime cactus parrot grasshopper emerald".split(),
    "blue": "kingfisher bluebird bluebell sapphire cornflower whale blueberry".split(),
    "white": "snowflake swan egg tooth daisy sheep cloud pearl".split(),
    "black": "crow raven blackbird tyre panther liquorice mole".split(),
    "brown": "bear chestnut potato acorn walnut log sparrow monkey".split(),
    "orange": "carrot pumpkin tangerine goldfish fox apricot mango".split(),
    "grey": "elephant mouse donkey rhino pigeon stone wolf".split(),
    "pink": "flamingo pig salmon blossom prawn".split(),
    "purple": "plum grape crocus aubergine amethyst".split(),
}

SPELLED: Final = tuple(
    """cat dog pig cow hen fox bee ant owl hat cup pen key box bed car bus sun sea sky map net pot jam egg tea milk
    bird fish frog duck goat wolf bear lion crab tree leaf rose seed corn cake rice soup bread apple lemon grape plum
    pear nut book lamp door wall roof ship boat train wheel bell drum horn flag kite ball doll ring coat shoe sock
    belt king queen baby hand foot nose ear eye leg arm rain snow wind star moon fire lake hill road""".split()
)

# The words that are sorted: short, common, many first letters.
SORTED: Final = tuple(
    """ant apple axe ball bear bell boat cake car cat coat deer dog door duck ear egg eye farm fish frog game gate goat
    hat hen horse ice ink iron jam jar jug key king kite lamp lake lion map milk moon nest net nut oak oil owl pan pear
    pig queen quilt rain ring rose seed ship sun tea tent tree van vase wall wind wolf yard yarn zebra zoo""".split()
)

# Verbs for "make it past" and for habits: he walks, he walked.
HABITS: Final = dict(
    pair.split("/")
    for pair in """walks/walked runs/ran goes/went drives/drove rides/rode hurries/hurried hops/hopped jumps/jumped
    dances/danced climbs/climbed swims/swam flies/flew sings/sang plays/played sleeps/slept reads/read works/worked
    eats/ate waits/waited sits/sat stands/stood cooks/cooked paints/painted laughs/laughed smiles/smiled
    shouts/shouted rests/rested studies/studied cries/cried hides/hid""".split()
)
