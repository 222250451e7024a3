# ruff: noqa: SIM905 - word lists are written as words, one after the other
"""The words of the small world, as data.

Everything is lower case but names and towns, so that the model meets a word as one token wherever it stands. No noun or
adjective here begins with a vowel letter that sounds like a consonant ("useful"), so "a" and "an" follow the spelling.
"""

from __future__ import annotations

from typing import Final

GIRLS: Final = tuple(
    """Ada Alice Amy Anna Beth Bella Carla Clara Cora Daisy Dora Edith Ella Emma Eva Fay Flora Freya Gina Grace Greta
    Hana Hazel Helen Holly Ida Ines Iris Ivy Jane Jenny Jill Joan Julia June Kate Kira Lara Laura Lena Lily Lisa Lola
    Lucy Luna Mara Maria Mary Maya Mia Mila Mina Molly Nadia Nancy Nell Nina Nora Olga Olive Paula Pia Polly Rita Rosa
    Rose Ruby Ruth Sally Sara Selma Sofia Stella Tara Tess Tina Vera Viola Wendy Wilma Yara Zara Zoe""".split()
)
BOYS: Final = tuple(
    """Abel Adam Alan Alex Amir Andy Anton Arno Axel Basil Ben Bert Bill Boris Bruno Carl Cyrus Dan David Dean Eddie
    Eli Emil Eric Ernest Felix Finn Frank Fred Fritz Gary George Gus Hans Harry Hector Henry Hugo Igor Ivan Jack Jacob
    James Jim Joe John Jonas Juan Karl Ken Kurt Larry Leo Levi Liam Louis Luca Luke Marco Mark Max Milo Ned Nick Noah
    Omar Oscar Otto Owen Pablo Paul Pedro Peter Quinn Ralph Ravi Rob Roger Rudi Sam Simon Stan Steve Ted Theo Tim Tom
    Tony Victor Walter Will Yusuf""".split()
)
NAMES: Final = GIRLS + BOYS

SURNAMES: Final = tuple(
    """Adler Baker Barnes Becker Bell Bishop Brook Carter Clark Cole Cooper Crane Dale Dawson Ellis Farmer Fisher Fox
    Garner Gibson Grant Gray Green Harper Hayes Hill Hunter Keller King Lane Larson Lewis Marsh Mason Miller Moore
    Morgan Nash Nolan Palmer Parker Perry Porter Reed Rivers Rowan Sanders Shaw Stone Taylor Turner Walker Ward Waters
    Webb Weller West Wood Wright Young""".split()
)
TOWNS: Final = tuple(
    """Ashford Bankside Birchley Blackwell Brandon Brightsea Cliffton Coldbrook Cornhill Crowley Deepdale Duckworth
    Eastwick Elmstead Fairview Fernley Foxhollow Glenmore Goldcrest Greystone Hartwell Hazelton Highmoor Kingsley
    Lakeside Larkhill Longbridge Maplewood Marshfield Meadowvale Millbrook Newhaven Northcliff Oakham Oldbury Orchard
    Pinewood Portland Ravensby Redmill Rosedale Sandport Silverton Southend Springfield Stonebridge Summerton Swanley
    Thornbury Underhill Wavecrest Westfield Whitby Willowby Windham Winterbourne""".split()
)

# Things that one person can hold and give away.
THINGS: Final = tuple(
    """ball balloon banner basket bell belt blanket book boot bottle bowl box bracelet broom brush bucket button camera
    candle card carpet chain clock coat coin comb compass cup diary doll drum envelope feather flag flute fork glove
    guitar hammer hat helmet jacket jar jewel jug kettle key kite knife ladder lamp lantern letter magnet map marble
    mask medal mirror mug necklace needle net notebook oar paddle paintbrush pan parcel pebble pen pencil pillow pipe
    plate pot purse puzzle racket ribbon ring robe rope ruler sack saddle sandal scarf scissor shawl shell shield shirt
    shoe shovel skate sled slipper soap sock spade sponge spoon stamp stick suitcase sweater sword telescope tent ticket
    torch towel toy tray trophy trumpet umbrella vase violin wagon wallet watch whip whistle wig wreath yoyo""".split()
)
# Things that can break and be mended by hand.
MACHINES: Final = tuple(
    """bicycle boat cart chair clock desk door drawer fence fountain gate lamp mill oven pump radio robot scooter shelf
    stove swing table tractor train wheel window""".split()
)
COLOURS: Final = tuple(
    """red blue green yellow black white brown grey pink purple orange golden silver violet scarlet crimson turquoise
    ivory beige amber""".split()
)
# Animals that a child could meet, with the place where each sits or hides left to the story.
ANIMALS: Final = tuple(
    """badger bat bear beaver bee beetle bird butterfly calf camel cat chick cow crab cricket crow deer dog donkey
    dove duck eagle falcon ferret fox frog goat goose hamster hare hawk hedgehog hen heron horse kitten lamb lark
    lizard llama lobster magpie mole monkey moose moth mouse mule newt otter owl parrot peacock penguin pig pigeon
    pony puppy rabbit raccoon rat raven robin rooster seal sheep skunk snail snake sparrow spider squirrel stork swan
    swallow tiger toad turkey turtle weasel whale wolf worm zebra""".split()
)
FOODS: Final = tuple(
    """apples bacon bananas barley beans beef berries biscuits bread broccoli butter cabbage cake candy carrots celery
    cheese cherries chicken chips chocolate cocoa corn crackers cream cucumbers dates dumplings eggs figs fish flour
    garlic ginger grapes ham honey jam jelly juice leeks lemons lentils lettuce melons milk mint muffins mushrooms
    mustard noodles nuts oats olives onions oranges pancakes parsley pasta peaches peanuts pears peas pepper pickles
    pies pizza plums popcorn porridge potatoes pudding pumpkins radishes raisins rice rolls salad salt sausages soup
    spinach stew strawberries sugar syrup tea toast tomatoes turnips vanilla vinegar waffles walnuts yogurt""".split()
)
DISHES: Final = tuple("soup stew pie cake salad pudding curry porridge pizza pancake omelette sandwich tart".split())

PLACES: Final = tuple(
    """airport attic bakery balcony bank barn basement bathroom bedroom bridge castle cave cellar church cinema
    classroom cliff cottage courtyard desert factory field forest garage garden greenhouse gym hall harbour hill
    hospital hotel hut island jungle kitchen lake library lighthouse market meadow mine mountain museum office orchard
    palace pantry park pier platform playground pond pool porch port prison quarry restaurant ridge river road roof
    school shed shop stable station studio temple terrace theatre tower tunnel valley village waterfall windmill
    workshop yard zoo""".split()
)
SPOTS: Final = tuple(
    """bed bench blanket board bush cabinet carpet counter cupboard curtain cushion fence flowerpot hedge leaf log mat
    piano pile pillow rock rug shelf sofa stool stone stump table tree trunk""".split()
)

ADJECTIVES: Final = tuple(
    """ancient bent big bright broad bumpy cheap clean clever cold cosy crooked curved damp dark dear deep
    dirty dry dull dusty empty enormous expensive famous fancy fat fine flat fluffy fresh funny furry gentle giant
    glossy grand hairy handy hard heavy hidden hollow huge icy large light little long lovely low lucky massive messy
    mighty modern muddy narrow neat new noisy odd old ordinary painted pale perfect plain pointed polished pretty
    proper quaint quick quiet rare real rough round rusty scratched secret shabby shaggy sharp shiny short silly simple
    slim slow small smart smelly smooth soft special spotted square stiff strange striped strong sturdy sweet tall tame
    tattered thick thin tidy tiny tough ugly warm weak wet wide wild wooden woollen worn wrinkled bare blank blunt
    brittle chipped chunky coarse crinkled crumpled curly dainty dented dim dotted drab faded feathery filthy floral
    fragile frail frosted glittering greasy homely jagged knotted lumpy mossy muffled padded patched petite plump
    prickly ragged ripe robust rugged scruffy silky skinny slender slimy slippery sloping sparkling speckled spiky
    spotless springy steep sticky stout streaked stubby supple swollen tangled tapered tender tilted torn twisted
    vast velvet vivid weathered weird wobbly""".split()
)
MOODS: Final = tuple(
    """afraid amazed angry anxious ashamed bored brave calm careful cheerful confused content curious delighted
    disappointed eager excited furious glad gloomy grateful grumpy happy hopeful hungry jealous joyful lazy lonely
    nervous patient pleased polite proud puzzled relaxed relieved restless sad scared serious shy sleepy sorry
    surprised thankful thirsty thoughtful tired upset weary worried""".split()
)
ADVERBS: Final = tuple(
    """alone awkwardly blindly boldly bravely briskly busily calmly carefully carelessly cautiously cheerfully cleverly
    clumsily coolly daintily eagerly easily elegantly faithfully feebly fiercely firmly fondly frankly freely gently
    gladly gloomily gracefully greedily grimly happily hastily heavily helplessly honestly hopefully hungrily hurriedly
    impatiently innocently jokingly joyfully keenly kindly lazily lightly loosely loudly lovingly merrily mildly
    nervously nicely nimbly obediently patiently peacefully playfully politely proudly quickly quietly rapidly readily
    sadly safely secretly seriously sharply shyly silently sleepily slowly smoothly softly solemnly steadily sternly
    strangely swiftly tenderly thankfully tightly truly warmly weakly wearily wildly wisely""".split()
)
# Ways of going somewhere; the past tense stands in the story.
WENT: Final = tuple(
    """climbed crawled crept cycled danced dashed drifted drove fled flew galloped hiked hobbled hopped hurried jogged
    jumped limped marched raced ran rode rolled rushed sailed skated skipped sneaked sprinted stepped stomped strode
    strolled swam tiptoed travelled trotted walked wandered""".split()
)
# Ways of saying something and of looking.
SAID: Final = tuple(
    """announced answered chuckled cried explained laughed mumbled murmured muttered remarked replied sang shouted
    sighed smiled sobbed squeaked thought whispered yelled""".split()
)
# What can be done to a thing: past tense.
HANDLED: Final = tuple(
    """admired bought brushed carried checked cleaned covered cracked drew dropped dusted examined found grabbed held
    hid inspected kicked kissed lifted liked loved measured moved noticed opened painted patted picked polished pulled
    pushed rubbed scratched shook showed spun stroked studied swung threw touched turned used wanted washed weighed
    wiped wrapped""".split()
)
# What somebody did for a while, without an object: past tense.
PLAYED: Final = tuple(
    """blinked blushed bowed breathed camped cheered clapped coughed daydreamed dozed exercised fished frowned gardened
    giggled grinned groaned hummed juggled knelt listened nodded paused played prayed rested sat shivered shrugged
    slept smiled sneezed snored stood stretched swayed waited waved wept whistled winked worked yawned""".split()
)
JOBS: Final = tuple(
    """actor artist astronaut baker barber builder butcher captain carpenter clown cook dancer dentist doctor driver
    farmer firefighter fisherman gardener guard hunter judge king knight lawyer mayor merchant miner musician nurse
    painter pilot plumber poet policeman postman prince princess queen sailor scientist shepherd shoemaker singer
    soldier tailor teacher thief vet waiter weaver witch wizard writer banker beekeeper blacksmith carver clerk
    coach cobbler collector composer cyclist designer diver florist glazier goldsmith grocer guide herald hiker
    jeweller jockey juggler keeper locksmith magician mason mechanic messenger miller monk peddler potter printer
    ranger reporter roofer sculptor seamstress surgeon surveyor tinker trader tutor watchmaker
    welder woodcutter""".split()
)
SKY: Final = tuple("sky air wind sun moon river grass snow ground water morning evening night light".split())
WEATHER: Final = tuple(
    """blustery breezy chilly clear cloudy cool crisp drizzly foggy freezing frosty hazy hot humid misty mild
    pleasant rainy snowy stormy sunny sultry wintry windy""".split()
)
STORMS: Final = tuple(
    """blizzard breeze cloud downpour drizzle flood fog frost gale hailstorm mist sandstorm shower squall storm
    thunderstorm""".split()
)
TIMES: Final = tuple(
    "afternoon autumn birthday dawn day dusk evening holiday morning night season spring summer weekend winter".split()
)
DAYS: Final = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
MONTHS: Final = tuple("January February March April May June July August September October November December".split())
RELATIVES: Final = tuple(
    "aunt brother cousin daughter father grandfather grandmother mother nephew neighbour niece sister son uncle".split()
)
PARTS: Final = tuple("ankle back belly chin ear elbow eye foot head knee leg neck nose paw shoulder tail toe".split())
NOISES: Final = tuple(
    """bang bark beep boom buzz chirp clang clatter click creak crunch growl hiss hoot howl knock rattle roar rustle
    scream scratching splash squeak squeal thud tick whisper""".split()
)
# Countable small things: plural.
COUNTED: Final = tuple(
    """acorns ants badges balls beads bells birds books boxes bricks buttons candles cards chestnuts clouds coins cones
    crayons cups daisies drums eggs feathers flags flowers gems jars keys kites lamps leaves marbles masks medals mugs
    nails nuts pears pebbles pencils petals pins plates roses seeds shells sheep socks spoons stamps stars stickers
    sticks stones strings tickets tiles toys tulips twigs""".split()
)
SUBJECTS: Final = tuple(
    """algebra anchors ancestors angels archery astronomy avalanches badminton ballads ballet bandits baseball
    basketball bears biology botany boxing bravery cameras canals canyons caravans carnivals cathedrals caves
    chemistry chess comets cookery cowboys cricket crystals customs deserts detectives diamonds economy eclipses
    elves emperors engines explorers fables fairies fashion festivals floods football forests fossils friendship
    galaxies gardens geography geometry giants glaciers gravity gymnastics heroes hockey honesty horses
    hurricanes inventions jewels jokes justice kindness languages law legends logic luck machines mammoths
    manners medicine memory mermaids meteors mining mummies mysteries mythology nature ninjas nutrition opera
    orchids painting parachutes patience peace philosophy photography physics poetry politics puppets pyramids
    rainbows religion riddles rituals rugby sailors savannas sculpture sharks skating skiing soccer spies
    spiders submarines sunsets swamps tennis theatre time tornadoes trade treasure tribes trolls vampires
    vikings villages voyages waterfalls weather weaving whales wisdom wrestling zoology animals art dinosaurs
    dragons ghosts history insects islands kings knights magic maps music numbers oceans pirates planets plants
    poems rivers robots rockets ships songs space sports stars storms trains volcanoes""".split()
)
OPENERS: Final = (
    "", "then ", "soon ", "after that, ", "later, ", "a moment later, ", "suddenly ", "at last ", "once again, ",
    "a little later, ", "before long, ", "not long after, ", "in the end, ", "to everyone's surprise, ", "as always, ",
    "luckily, ", "without a word, ", "of course, ", "meanwhile, ", "for some reason, ", "all at once, ", "next, ",
    "in no time, ", "just then, ", "sure enough, ", "strangely, ", "with a smile, ", "with a sigh, ", "by chance, ",
    "after a while, ", "an hour later, ", "that very day, ", "quite soon, ", "now ", "again ", "as planned, ",
)  # fmt: skip

# What stories and questions are about, again and again, so that a small model can learn to look them up: the cast, what
# they own and where they are. All the other people, things and places pass by once.
CAST: Final = (*GIRLS[1::16], *BOYS[2::17])
OWNED: Final = tuple(thing for thing in THINGS[::8] if thing not in SPOTS)
SCENES: Final = TOWNS[::5]
FAR_TOWNS: Final = tuple(town for town in TOWNS if town not in SCENES)
PAINTS: Final = COLOURS[:10]
PETS: Final = ANIMALS[::4]
