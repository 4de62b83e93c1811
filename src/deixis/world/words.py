"""The words of captions and referring expressions: nouns and their plurals, colours, materials, places, phrases.

Phrases are written with alternatives in parentheses, ``(a photo|an image) of a room``; :func:`vary` chooses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np


@cache
def split(text: str) -> tuple[str, ...]:
    """The alternatives of ``this|that``."""
    return tuple(text.split("|"))


# Surface forms of each class, the usual one first; every form is true of everything the class may name.
_NOUNS: dict[str, str] = {
    # structure
    "wall": "wall",
    "floor": "floor|flooring",
    "ceiling": "ceiling",
    "road": "road|roadway|carriageway",
    "pavement": "pavement|sidewalk|footpath|footway",
    "grass": "grass|lawn|turf|greensward",
    "field": "field|meadow|pasture|farmland",
    "kerb": "kerb|curb|kerbstone",
    "hill": "hill|hillside|slope",
    "ground": "ground",
    "lane marking": "lane marking|road marking|painted line",
    "crossing": "crossing|pedestrian crossing|zebra crossing|crosswalk",
    # seats, beds, tables
    "chair": "chair",
    "armchair": "armchair|easy chair|lounge chair|upholstered chair",
    "sofa": "sofa|couch|settee",
    "stool": "stool|backless seat|footstool",
    "ottoman": "ottoman|hassock|pouffe|upholstered footstool",
    "bench": "bench|long seat",
    "bed": "bed",
    "crib": "crib|cot|baby bed",
    "table": "table",
    "coffee table": "coffee table|low table|cocktail table",
    "dining table": "dining table|kitchen table|dinner table",
    "side table": "side table|end table|occasional table",
    "desk": "desk|writing desk|writing table|work desk|worktable",
    "counter": "counter|countertop|worktop|kitchen counter",
    "dresser": "dresser|chest of drawers|bureau|commode",
    "night stand": "night stand|nightstand|bedside table|bedside cabinet|bedside stand",
    # storage
    "bookshelf": "bookshelf|bookcase|book rack",
    "shelves": "shelves|shelving|shelving unit|set of shelves",
    "shelf": "shelf|ledge|rack",
    "cabinet": "cabinet|cupboard|storage unit",
    "wardrobe": "wardrobe|armoire|clothes cupboard",
    # kitchen and bath
    "sink": "sink|basin|washbasin|washbowl",
    "refrigerator": "refrigerator|fridge|icebox",
    "stove": "stove|cooker|kitchen stove|cooking stove",
    "oven": "oven",
    "hood": "hood|cooker hood|extractor hood|kitchen hood",
    "microwave": "microwave|microwave oven",
    "toilet": "toilet|lavatory|loo|water closet",
    "bathtub": "bathtub|tub|bath",
    "shower": "shower|shower cubicle",
    "washing machine": "washing machine|washer|laundry machine",
    "radiator": "radiator|heater|heating unit",
    "towel": "towel|bath towel",
    "paper": "paper|sheet of paper|paperwork",
    "shower curtain": "shower curtain|bath curtain",
    "kettle": "kettle|tea kettle",
    "pan": "pan|frying pan|skillet",
    "pot": "pot|cooking pot|saucepan|stockpot",
    "toaster": "toaster",
    "soap": "soap|hand soap",
    "plate": "plate|dish",
    "bottle": "bottle|flask",
    "cup": "cup|mug|beaker",
    "bowl": "bowl|round dish",
    # screens and small things
    "television": "television|TV|telly|television set|TV set",
    "monitor": "monitor|computer monitor|computer screen|computer display",
    "laptop": "laptop|laptop computer|notebook computer|portable computer",
    "keyboard": "keyboard|computer keyboard",
    "lamp": "lamp|light|luminaire",
    "floor lamp": "floor lamp|standing lamp|standard lamp",
    "table lamp": "table lamp|desk lamp|reading lamp",
    "ceiling lamp": "ceiling lamp|ceiling light|overhead light|pendant lamp",
    "clock": "clock|timepiece|timekeeper",
    "fan": "fan|ventilator|electric fan",
    "phone": "phone|telephone",
    "telephone": "telephone|phone|landline phone",
    "picture": "picture|framed picture|artwork",
    "poster": "poster|wall poster|print",
    "painting": "painting|canvas|artwork",
    "mirror": "mirror|looking glass|wall mirror",
    "whiteboard": "whiteboard|dry-erase board|marker board",
    "books": "books|volumes|reading matter",
    "book": "book|volume",
    "clothes": "clothes|clothing|garments|apparel",
    "shoes": "shoes|footwear|pair of shoes",
    "toy": "toy|plaything",
    "ball": "ball|play ball",
    "toy car": "toy car|model car|miniature car",
    "teddy bear": "teddy bear|stuffed bear|teddy|plush bear",
    "toy blocks": "toy blocks|building blocks|wooden bricks",
    "pillow": "pillow|cushion",
    "cushion": "cushion|pillow",
    "blanket": "blanket|throw|bedcover",
    "box": "box|carton|container",
    "basket": "basket|hamper",
    "bag": "bag|carrier bag|tote|holdall",
    "suitcase": "suitcase|travel case",
    "bin": "bin|rubbish bin|trash can|garbage can|waste bin|dustbin",
    "plant": "plant|potted plant|houseplant|pot plant",
    "vase": "vase|flower vase|urn",
    "piano": "piano|upright piano",
    # openings and textiles
    "door": "door",
    "door frame": "door frame|door surround",
    "window": "window|window pane|casement",
    "curtain rod": "curtain rod|curtain pole|curtain rail",
    "curtain": "curtain|drape|window drape",
    "blinds": "blinds|window blinds|window shades",
    "floor mat": "floor mat|rug|mat|carpet|foot mat",
    "rug": "rug|carpet|floor rug|area rug|floor mat",
    # roads
    "car": "car|automobile|motorcar|auto",
    "taxi": "taxi|cab|taxicab",
    "truck": "truck|lorry|goods vehicle",
    "bus": "bus|coach|omnibus",
    "van": "van|delivery van|panel van|minivan",
    "motorcycle": "motorcycle|motorbike|motor scooter",
    "bicycle": "bicycle|bike|pushbike|pedal cycle",
    "person": "person|human|human being|figure",
    "pedestrian": "pedestrian|walker|passer-by",
    "dog": "dog|hound|canine",
    "cat": "cat|feline",
    "tree": "tree",
    "bush": "bush|shrub",
    "hedge": "hedge|hedgerow|row of shrubs",
    "house": "house|home|dwelling|residence",
    "building": "building|edifice",
    "block of flats": "block of flats|apartment block|apartment building|apartment house|tenement|tower block",
    "fence": "fence|fencing|paling",
    "guard rail": "guard rail|guardrail|crash barrier|safety barrier",
    "pole": "pole|post|mast",
    "street lamp": "street lamp|streetlight|street light|lamppost|lamp post",
    "traffic light": "traffic light|traffic signal|stoplight|signal light",
    "sign": "sign|road sign|traffic sign|street sign|signpost",
    "bollard": "bollard|short post",
    "hydrant": "hydrant|fire hydrant|fireplug",
    "mailbox": "mailbox|postbox|letter box|letterbox",
    "traffic cone": "traffic cone|road cone|safety cone|pylon",
    "bus stop": "bus stop|bus shelter|bus station",
    "rock": "rock|boulder|stone",
}
NOUNS: dict[str, tuple[str, ...]] = {name: split(forms) for name, forms in _NOUNS.items()}

ROAD_ONLY = split(
    "ground|lane marking|crossing|road|pavement|grass|field|kerb|hill|car|truck|bus|van|motorcycle|"
    "bicycle|pedestrian|dog|tree|bush|hedge|house|"
    "building|block of flats|fence|guard rail|pole|street lamp|traffic light|sign|bollard|hydrant|mailbox|"
    "traffic cone|bus stop|rock|taxi"
)
STRUCTURE = frozenset(
    split("wall|floor|ceiling|road|pavement|grass|field|kerb|hill|sky|door frame|ground|lane marking|crossing")
)

# Nouns for what several classes are; a thing of any class listed may be meant.
HYPERNYMS: dict[str, tuple[str, ...]] = {
    name: split(members)
    for name, members in {
        "vehicle": "car|taxi|truck|bus|van|motorcycle|bicycle",
        "motor vehicle": "car|taxi|truck|bus|van|motorcycle",
        "two-wheeler": "motorcycle|bicycle",
        "animal": "dog|cat|teddy bear",
        "creature": "dog|cat|person|pedestrian|toy|teddy bear",
        "pet": "dog|cat",
        "seat": "chair|armchair|sofa|stool|ottoman|bench|bed|toilet",
        "place to sit": "chair|armchair|sofa|stool|ottoman|bench|bed|toilet",
        "something to sit on": "chair|armchair|sofa|stool|ottoman|bench|bed|toilet|box|basket",
        "something to sleep in": "bed|crib|sofa|armchair|bench",
        "thing that tells the time": "clock|laptop|monitor|television|stove|microwave|phone|telephone",
        "thing to wash your hands in": "sink|bathtub|shower|bowl",
        "thing that keeps food cold": "refrigerator",
        "thing to throw rubbish into": "bin|basket|bag|box",
        "thing that shows your reflection": "mirror|window|picture|television",
        "thing to drink from": "cup|bottle|bowl|vase|kettle",
        "thing to write on": "whiteboard|desk|paper|table|books|book",
        "place for books": "bookshelf|shelves|shelf|cabinet|desk|table|night stand|coffee table|dresser",
        "screen": "television|monitor|laptop|whiteboard|phone|telephone|picture|poster|window",
        "household appliance": "refrigerator|stove|oven|microwave|washing machine|toaster|television|fan|kettle|"
        "lamp|laptop|radiator",
        "greenery": "plant|tree|bush|hedge|grass|field|hill",
        "light source": "lamp|floor lamp|table lamp|ceiling lamp|street lamp|traffic light|window|television|monitor",
        "floor covering": "floor mat|rug|floor|towel",
        "receptacle": "box|basket|bag|bin|vase|bowl|cup|bottle|suitcase|mailbox",
    }.items()
}

# How many of a hypernym's classes, from the first on, are members without doubt.
SURE: dict[str, int] = {
    **{name: len(members) for name, members in HYPERNYMS.items()},
    "animal": 2,
    "creature": 2,
    "seat": 4,
    "place to sit": 4,
    "something to sit on": 4,
    "something to sleep in": 1,
    "thing that tells the time": 1,
    "thing to wash your hands in": 1,
    "thing to throw rubbish into": 1,
    "thing that shows your reflection": 1,
    "thing to drink from": 1,
    "thing to write on": 2,
    "place for books": 1,
    "screen": 2,
    "household appliance": 6,
    "greenery": 4,
    "light source": 5,
    "floor covering": 2,
    "receptacle": 2,
}

# Classes that people mix up: an expression about one must not be true, read generously, of another.
_ALIKE = tuple(
    split(group)
    for group in (
        "chair|armchair|stool|sofa|toilet",
        "sofa|armchair|bench|bed|crib|ottoman",
        "stool|ottoman|coffee table|side table|night stand|bench|box|pillow",
        "table|coffee table|dining table|side table|desk|night stand|counter|bench|dresser",
        "cabinet|dresser|wardrobe|night stand|counter|bookshelf|shelves|shelf|refrigerator|door|desk",
        "stove|oven|microwave|toaster|washing machine|counter|cabinet",
        "sink|bathtub|bowl|shower|toilet|counter",
        "television|monitor|laptop|picture|whiteboard|mirror|painting|window",
        "keyboard|laptop",
        "picture|poster|painting|mirror|window|whiteboard|clock|paper",
        "books|book|box|paper|laptop",
        "bag|basket|box|bin|suitcase|clothes|pillow",
        "vase|bottle|cup|bowl|plant|lamp|table lamp|kettle|bin|pan|pot|plate|soap",
        "bin|mailbox|hydrant|bollard|box",
        "pillow|cushion|blanket|towel|clothes",
        "curtain|blinds|shower curtain|towel|window|clothes",
        "floor mat|rug|towel|blanket",
        "shoes|clothes|toy|box|bag",
        "toy|ball|cat|dog|box|toy car|teddy bear|toy blocks",
        "lamp|floor lamp|table lamp|ceiling lamp|street lamp|fan",
        "traffic light|street lamp|pole|sign|bollard|lamp",
        "bollard|traffic cone|hydrant|pole|kerb",
        "mailbox|bin|box|hydrant|house|bus stop",
        "sign|bus stop|picture|traffic light",
        "car|taxi|truck|van|bus",
        "bicycle|motorcycle",
        "person|pedestrian",
        "tree|bush|hedge|plant",
        "house|building|block of flats|bus stop|wall",
        "fence|guard rail|hedge|wall|kerb",
        "road|pavement|kerb",
        "grass|field|hill|ground",
        "road|ground|pavement",
        "lane marking|crossing",
        "rock|hill|box",
        "radiator|cabinet|box",
        "phone|telephone|box|laptop",
        "piano|cabinet|desk|dresser",
        "wall|ceiling|floor|door|door frame",
    )
)

# What may be seen as a part of a thing without being a thing of its own.
HOLDS: dict[str, tuple[str, ...]] = {
    name: split(parts)
    for name, parts in {
        "bed": "pillow|cushion|blanket",
        "sofa": "pillow|cushion|blanket",
        "armchair": "pillow|cushion",
        "chair": "pillow|cushion",
        "bench": "pillow|cushion",
        "counter": "sink|stove|oven|cabinet|table",
        "cabinet": "door|shelves|shelf|mirror",
        "wardrobe": "door|mirror|clothes",
        "dresser": "mirror|door",
        "bookshelf": "books|book|shelves|shelf|box|cabinet",
        "shelves": "books|book|shelf|box",
        "shelf": "books|book",
        "stove": "oven|door",
        "refrigerator": "door",
        "desk": "cabinet|shelf|dresser",
        "laptop": "keyboard|monitor",
        "house": "window|door|fence|wall",
        "building": "window|door|wall",
        "block of flats": "window|door|wall",
        "bus stop": "bench|sign|pole|picture",
        "car": "window|door|lamp|mirror",
        "truck": "window|door|lamp|mirror|box",
        "bus": "window|door|lamp|mirror|sign",
        "van": "window|door|lamp|mirror",
        "motorcycle": "lamp",
        "street lamp": "pole",
        "traffic light": "pole|lamp",
        "sign": "pole",
        "plant": "vase|box|bin",
        "vase": "plant",
        "bin": "bag",
        "door": "window",
        "wall": "window|door",
        "window": "curtain|blinds|door",
        "tree": "pole",
        "ceiling": "lamp|ceiling lamp",
        "fence": "pole",
        "guard rail": "pole",
        "person": "clothes|shoes|bag|pedestrian",
        "pedestrian": "clothes|shoes|bag",
        "mirror": "picture",
        "basket": "bag|clothes",
    }.items()
}

# Further classes that single forms may mean.
_LOOSE: dict[str, tuple[str, ...]] = {
    "carpet": ("floor",),
    "light": ("window", "traffic light", "street lamp"),
    "home": ("block of flats", "building"),
    "dwelling": ("block of flats", "building"),
    "residence": ("block of flats", "building"),
    "container": ("bin", "basket", "bag", "bottle", "vase", "cup", "bowl"),
    "figure": ("toy", "dog", "vase"),
    "dish": ("bowl", "cup", "pan"),
    "round dish": ("plate", "pan"),
    "throw": ("floor mat",),
    "hamper": ("bin", "box"),
    "rack": ("bookshelf", "shelves"),
    "post": ("fence", "bollard", "street lamp"),
    "stone": ("kerb", "wall"),
    "slope": ("road", "grass"),
    "artwork": ("vase", "painting", "picture"),
    "heater": ("stove",),
    "storage unit": ("shelves", "bookshelf", "box"),
}

# "for …": what people use things of the class for.
_PURPOSES: dict[str, str] = {
    "chair": "sitting|sitting upright|taking a seat|resting tired legs|perching",
    "armchair": "lounging|curling up with a novel|relaxing in the evening|unwinding|leaning back",
    "sofa": "lounging|stretching out|hosting guests|watching films|cuddling up|taking it easy",
    "stool": "perching|propping up legs|brief sitting|reaching high cupboards",
    "bench": "sitting side by side|pausing|waiting|a short rest",
    "bed": "sleeping|napping|slumber|dreaming|a good night's rest|dozing|lying down",
    "table": "eating together|shared meals|playing cards|serving food|gathering around",
    "coffee table": "magazines|putting down drinks|snacks|the television guide",
    "dining table": "family dinners|lunch|breakfast|feasts|banquets",
    "side table": "putting down a drink|holding odds and ends",
    "desk": "writing|studying|homework|drawing|typing letters|working|concentrating",
    "counter": "chopping vegetables|preparing meals|kneading dough|slicing bread|mixing ingredients",
    "dresser": "folded clothes|storing socks|linens|keeping underwear tidy",
    "night stand": "alarm clocks|bedtime reading|spectacles|a glass of water",
    "bookshelf": "storing novels|literature|encyclopedias|arranging paperbacks|a private library",
    "shelves": "storage|displaying ornaments|keeping supplies|stacking goods|arranging trinkets",
    "shelf": "displaying ornaments|keeping small items",
    "cabinet": "storage|crockery|hiding clutter|keeping belongings|files and folders",
    "wardrobe": "coats and jackets|hanging shirts|storing dresses|trousers and suits|keeping outfits",
    "sink": "washing hands|rinsing dishes|scrubbing|running water|brushing teeth",
    "refrigerator": "keeping food cold|chilling milk|cooling beverages|fresh groceries|leftovers|cheese and butter",
    "stove": "cooking|boiling water|frying eggs|simmering soup|roasting|heating stew",
    "oven": "baking|roasting meat|cakes and pies",
    "hood": "drawing off steam|sucking up kitchen smells|extracting fumes",
    "microwave": "warming meals|defrosting|popcorn",
    "toilet": "flushing|private needs|hygiene|sanitary use",
    "bathtub": "bathing|soaking|a hot soak|bubbles and foam|getting clean",
    "shower": "showering|a quick wash",
    "washing machine": "washing laundry|cleaning fabrics|spinning wet clothes",
    "radiator": "warmth|heating in winter",
    "towel": "drying off|wiping hands|absorbing water",
    "paper": "notes|sketching|printing|memos|scribbling",
    "shower curtain": "stopping splashes|bathing in private",
    "kettle": "making tea|hot drinks",
    "pan": "frying|sauces",
    "plate": "serving dinner|sandwiches",
    "bottle": "pouring wine|storing liquids|juice|oil or vinegar|lemonade|carrying water",
    "cup": "drinking coffee|sipping tea|hot chocolate|espresso|cocoa",
    "bowl": "soup|cereal|fruit salad|porridge|nuts and sweets|mixing batter",
    "television": "watching programmes|news broadcasts|movies|sports events|series|entertainment|video games",
    "monitor": "viewing documents|computer work|spreadsheets|displaying windows|gaming|programming",
    "laptop": "browsing the internet|email|mobile computing|chatting online|editing files|teleworking",
    "ottoman": "resting your legs|extra seating",
    "crib": "babies|infants|an afternoon nap",
    "pot": "boiling potatoes|stews|cooking spaghetti|making broth",
    "toaster": "toasting bread|crisp slices|bagels",
    "soap": "washing|lathering",
    "telephone": "calls|talking to friends|dialling numbers|ringing someone up",
    "poster": "decoration|fans of bands and films|adorning the wall",
    "toy car": "playing|little racers",
    "teddy bear": "hugging|bedtime cuddles|playing",
    "toy blocks": "stacking towers|building castles|playing",
    "rug": "cosiness underfoot|soft footsteps|muffling footsteps|covering boards",
    "taxi": "hired rides|fares|airport transfers",
    "keyboard": "typing|entering text",
    "lamp": "lighting|illumination|brightening the evening|reading after dark|a warm glow",
    "floor lamp": "illumination|lighting a corner|a soft glow",
    "table lamp": "reading at night|lighting a desktop",
    "ceiling lamp": "overhead lighting|brightening the whole interior",
    "clock": "telling the time|counting hours|showing minutes and seconds|punctuality|keeping schedules",
    "fan": "moving air|cooling down|ventilation|a breeze|hot summer days",
    "phone": "calls|talking to friends",
    "picture": "decoration|adorning the wall|brightening up a blank wall|admiring|art lovers",
    "painting": "decoration|art lovers|contemplation",
    "mirror": "checking your reflection|combing hair|shaving|applying makeup|grooming|vanity",
    "whiteboard": "brainstorming|teaching|diagrams|writing with markers|formulas|explaining ideas|lessons",
    "books": "reading|learning|knowledge|bookworms|stories and poetry|quiet afternoons",
    "book": "reading|learning",
    "clothes": "wearing|dressing|getting dressed|fashion|keeping the body covered",
    "shoes": "walking|strolling|wearing outside",
    "toy": "playing|children|kids|amusement|fun and games|toddlers",
    "ball": "throwing and catching|kicking",
    "pillow": "resting the head|softness|comfort|supporting the neck|snuggling",
    "cushion": "comfort|padding a seat",
    "blanket": "keeping warm|covering up|chilly nights",
    "box": "packing|storing things|shipping|moving house|parcels and gifts|carrying stuff",
    "basket": "picnics|fruit and vegetables|collecting laundry|harvesting|knitting supplies",
    "bag": "shopping|carrying purchases|errands|hauling stuff|transporting personal belongings",
    "suitcase": "travelling|holidays|packing for a trip",
    "bin": "rubbish|waste|litter|garbage disposal|discarding scraps|refuse|trash",
    "plant": "fresh air|a touch of nature|watering|gardeners|botany enthusiasts",
    "vase": "fresh flowers|a bouquet|roses and tulips|cut blossoms|floral arrangements|ornament",
    "piano": "playing music|melodies and chords|sonatas|practising scales",
    "door": "going in and out|entering|exiting|passing through|privacy|leaving and arriving",
    "window": "daylight|looking outside|letting in air|airing|natural light|sunbeams",
    "curtain rod": "hanging drapes|holding up curtains|sliding curtain rings",
    "curtain": "shading|blocking sunlight|darkening|covering glass|draping",
    "blinds": "dimming|shutting out glare|filtering sunshine|adjusting brightness",
    "floor mat": "warm toes|wiping muddy soles|protecting the flooring|stepping on|barefoot walking",
    "car": "driving|commuting|road trips|family outings|passengers|motorists",
    "truck": "hauling cargo|freight|heavy loads|transporting goods|logistics|shipments",
    "bus": "public transport|many passengers|commuters|sightseeing tours|school trips|transit",
    "van": "deliveries|couriers|tradesmen|carrying tools|parcels|plumbers and electricians",
    "motorcycle": "riding|bikers|speedy trips|riders with helmets",
    "bicycle": "cycling|pedalling|cyclists|exercise|green transport|riding without fuel",
    "tree": "shade|birds and squirrels|nesting|climbing|oxygen",
    "bush": "hiding places|hedgehogs|garden borders|small birds",
    "hedge": "marking boundaries|screening a garden|sparrows|trimming",
    "house": "living in|a family|residents|raising children|neighbours|homeowners",
    "building": "housing people|offices or shops",
    "block of flats": "many households|tenants|city dwellers|urban living|lodgers and renters",
    "fence": "enclosing land|marking property|keeping animals in|separating gardens",
    "guard rail": "road safety|preventing accidents|stopping skidding traffic",
    "pole": "holding cables|carrying wires|support",
    "street lamp": "lighting the way|illuminating streets after sunset|safety at night|dark evenings",
    "traffic light": "regulating traffic|stopping drivers|signalling|controlling crossings",
    "sign": "warnings|directions|drivers' information|announcing rules|guidance|instructions",
    "bollard": "keeping traffic out|protecting pedestrians|blocking access",
    "hydrant": "firefighters|fighting fires|emergencies|hoses",
    "mailbox": "letters|postcards|the mail carrier|envelopes|correspondence|stamps and post",
    "traffic cone": "roadworks|marking hazards|diverting traffic|construction zones|caution",
    "bus stop": "waiting passengers|boarding|catching the next ride|timetables",
    "dog": "companionship|fetching sticks|guarding",
    "road": "traffic|driving|getting around|wheels",
    "pavement": "people on foot|strolling|walkers",
    "grass": "mowing|lying in the sun|picnics",
    "field": "crops|grazing|farming|agriculture|harvest",
    "hill": "hiking|climbers|sheep",
}
PURPOSES: dict[str, tuple[str, ...]] = {name: split(text) for name, text in _PURPOSES.items()}

FOR = (
    "for",
    "for",
    "used for",
    "meant for",
    "made for",
    "good for",
    "intended for",
    "ideal for",
    "suited for",
    "handy for",
)

_COLOURS: dict[str, str] = {
    "white": "white|snow-white|chalk-white|milky white|whitish|bright white",
    "grey": "grey|gray|ash-grey|greyish|stone grey|mid-grey|neutral grey",
    "black": "black|jet-black|coal-black|inky black|ebony|pitch-black|raven black",
    "red": "red|crimson|scarlet|ruby|cherry red|reddish|carmine|vermilion",
    "dark red": "dark red|maroon|burgundy|wine red|deep red|oxblood|claret|dark crimson",
    "orange": "orange|tangerine|pumpkin orange|carrot-coloured|mandarin orange|vivid orange",
    "yellow": "yellow|golden yellow|mustard yellow|yellowish|sunflower yellow|canary yellow|saffron",
    "green": "green|emerald|grass-green|leaf-green|greenish|shamrock green|kelly green",
    "dark green": "dark green|forest green|bottle green|deep green|pine green|hunter green|spruce green",
    "light green": "light green|pale green|pistachio|mint green|pastel green|apple green|celery green",
    "turquoise": "turquoise|teal|aqua|aquamarine|blue-green|cyan|lagoon-coloured",
    "blue": "blue|royal blue|cobalt|sapphire|bluish|ultramarine|azure",
    "dark blue": "dark blue|navy|navy blue|midnight blue|deep blue|indigo",
    "light blue": "light blue|pale blue|sky-blue|baby blue|powder blue|pastel blue|ice-blue|cornflower blue",
    "purple": "purple|violet|plum-coloured|aubergine|amethyst|purplish|grape-coloured",
    "pink": "pink|rose-pink|rosy|blush pink|pinkish|flamingo pink|candy pink",
    "brown": "brown|chestnut|nut-brown|hazel|brownish|cinnamon brown|cocoa brown|umber",
    "dark brown": "dark brown|chocolate brown|coffee brown|deep brown|espresso-coloured|mahogany-coloured|sepia",
    "beige": "beige|cream|tan|sand-coloured|fawn|ecru|oatmeal-coloured|buff|biscuit-coloured",
}
COLOURS: dict[str, tuple[str, ...]] = {name: split(forms) for name, forms in _COLOURS.items()}

_NEXT_COLOURS: dict[str, str] = {
    "white": "grey|beige|light blue|light green|pink|yellow",
    "grey": "white|black|beige|light blue|dark blue|dark green|brown|dark brown|light green|turquoise",
    "black": "grey|dark brown|dark blue|dark green|dark red|purple|brown",
    "red": "dark red|orange|pink|brown|purple",
    "dark red": "red|brown|dark brown|purple|black|pink",
    "orange": "red|yellow|brown|beige|pink",
    "yellow": "orange|beige|light green|white|brown",
    "green": "dark green|light green|turquoise|yellow",
    "dark green": "green|black|turquoise|grey|dark blue|dark brown|light green",
    "light green": "green|yellow|turquoise|white|beige|grey|dark green",
    "turquoise": "blue|green|light blue|light green|dark green|dark blue|grey",
    "blue": "dark blue|light blue|turquoise|purple",
    "dark blue": "blue|black|purple|grey|turquoise|dark green|light blue",
    "light blue": "blue|turquoise|white|grey|dark blue",
    "purple": "blue|dark blue|pink|dark red|red|black",
    "pink": "red|purple|white|beige|orange|dark red",
    "brown": "dark brown|beige|orange|dark red|red|black|yellow|grey",
    "dark brown": "brown|black|dark red|grey|beige|dark green",
    "beige": "white|brown|yellow|grey|orange|pink|dark brown|light green",
}

# Adjectives, then what may follow the noun.
_MATERIALS: dict[str, tuple[str, str]] = {
    "wood": ("wooden|wood|timber", "made of wood|made from timber|built of wood"),
    "metal": ("metal|metallic", "made of metal|of metal"),
    "steel": ("steel|metal", "made of steel|of polished steel"),
    "fabric": ("fabric|cloth|textile", "made of fabric|of woven cloth"),
    "cloth": ("cloth|fabric|textile", "made of cloth"),
    "leather": ("leather", "made of leather|of smooth leather"),
    "plastic": ("plastic", "made of plastic|of moulded plastic"),
    "glass": ("glass", "made of glass"),
    "ceramic": ("ceramic|glazed", "made of ceramic|of fired clay"),
    "porcelain": ("porcelain|china", "made of porcelain"),
    "stone": ("stone", "made of stone|built from stone"),
    "marble": ("marble", "made of marble"),
    "concrete": ("concrete", "made of concrete|of poured cement"),
    "brick": ("brick", "built of brick|made of bricks"),
    "paper": ("paper", "made of paper"),
    "cardboard": ("cardboard", "made of cardboard|of corrugated board"),
    "wicker": ("wicker|woven", "made of wicker|of woven cane"),
    "carpet": ("carpeted", "covered with carpet"),
    "rubber": ("rubber", "made of rubber"),
    "tile": ("tiled", "covered with tiles"),
    "tiles": ("tiled", "covered with tiles"),
    "plaster": ("plastered", "covered with plaster"),
    "linen": ("linen", "made of linen"),
    "wool": ("woollen|woolly", "made of wool"),
    "cotton": ("cotton", "made of cotton"),
    "velvet": ("velvet|velvety", "made of velvet"),
    "asphalt": ("asphalt|tarmac|asphalted", "paved with asphalt"),
    "gravel": ("gravel", "of gravel"),
    "paint": ("painted", "with a coat of paint"),
    "laminate": ("laminate", "of laminate"),
}
MATERIALS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (split(before), split(after)) for name, (before, after) in _MATERIALS.items()
}
_NEXT_MATERIALS = tuple(
    split(group)
    for group in (
        "wood|wicker|cardboard|laminate",
        "metal|steel|plastic|paint",
        "fabric|cloth|leather|linen|wool|cotton|velvet|carpet",
        "plastic|rubber|leather|laminate|paint|ceramic|porcelain|glass|paper",
        "ceramic|porcelain|stone|marble|tile|tiles|glass",
        "stone|concrete|brick|plaster|asphalt|gravel|marble|tile|tiles",
        "paper|cardboard|fabric|cloth|plaster|paint",
    )
)

_PATTERNS: dict[str, tuple[str, str]] = {
    "striped": ("striped|stripy|banded", "with stripes|with a striped pattern|with bands of colour"),
    "checked": ("checked|checkered|chequered", "with a checked pattern|with checks|with a chessboard pattern"),
    "tiled": ("tiled", "with tiles|covered in tiles"),
    "speckled": ("speckled|flecked|mottled", "with speckles|with little flecks"),
    "patterned": ("patterned|decorated", "with a pattern"),
    "grained": ("grained", "with a visible grain"),
    "planked": ("planked|boarded", "laid with planks|with boards"),
    "brick": ("brick", "with bricks"),
    "bricks": ("brick", "with bricks"),
    "spotted": ("spotted|dotted", "with spots|with dots"),
    "dotted": ("dotted|spotted", "with dots"),
}
PATTERNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (split(before), split(after)) for name, (before, after) in _PATTERNS.items()
}

# Classes whose material goes without saying, and those whose colour is what they wear.
SILENT = frozenset(
    split(
        "tree|bush|hedge|plant|person|pedestrian|dog|cat|car|taxi|truck|bus|van|motorcycle|bicycle|"
        "lane marking|crossing"
    )
)
WEARERS = frozenset(split("person|pedestrian"))
WEARING = "(in|wearing|dressed in|clad in|with clothes in)"
RISING = SILENT | frozenset(
    split(
        "house|building|block of flats|bus stop|pole|street lamp|traffic light|sign|fence|guard rail|"
        "wall|hydrant|mailbox"
    )
)

BUILDS: dict[str, tuple[str, ...]] = {"small": ("small", "little", "compact"), "large": ("large", "big", "sizeable")}

_PLACES: dict[str, str] = {
    "bedroom": "bedroom|bedchamber|sleeping chamber|sleeping area|room for sleeping",
    "living room": "living room|lounge|sitting room|parlour|front room|drawing room",
    "kitchen": "kitchen|cooking area|room for cooking",
    "dining room": "dining room|eating area|room for meals",
    "bathroom": "bathroom|washroom|restroom|bathing room",
    "office": "office|workplace|workroom",
    "study": "study|home office|den",
    "home office": "home office|study|den",
    "corridor": "corridor|hallway|passage|passageway",
    "hallway": "hallway|corridor|passageway",
    "hall": "hall|entrance hall",
    "classroom": "classroom|schoolroom|teaching room|room for lessons",
    "meeting room": "meeting room|conference room|boardroom",
    "library": "library|reading room",
    "storeroom": "storeroom|storage room|stockroom",
    "store room": "store room|storeroom|storage room|stockroom",
    "playroom": "playroom|play area|room for children",
    "storage room": "storage room|storeroom|stockroom",
    "laundry room": "laundry room|utility room|room for laundry",
    "nursery": "nursery|children's room|playroom",
    "children's room": "children's room|kids' room|playroom",
    "shop": "shop|store|retail space",
    "basement": "basement|cellar",
    "attic": "attic|loft|garret",
    "garage": "garage|carport",
    "lobby": "lobby|foyer|vestibule|reception area",
    "waiting room": "waiting room|waiting area",
    "room": "room|indoor space|chamber",
    "street": "street|road|thoroughfare|roadway",
    "village street": "village street|village road|street in a village|rural settlement|settlement",
    "city street": "city street|urban street|downtown street|street in the city|thoroughfare",
    "town street": "town street|street in a town|urban street|high street",
    "residential street": "residential street|suburban street|street of homes|suburban neighbourhood",
    "suburb": "suburb|suburban street|residential area|edge of town",
    "suburban street": "suburban street|residential street|street in the suburbs|edge of town",
    "country road": "country road|rural road|lane in the countryside|country lane",
    "highway": "highway|motorway|freeway|expressway",
    "motorway": "motorway|highway|freeway|expressway",
    "avenue": "avenue|boulevard",
    "car park": "car park|parking lot|parking area",
    "crossroads": "crossroads|intersection|road junction",
    "junction": "junction|intersection|crossing",
    "park": "park|public garden",
    "square": "square|plaza",
    "cafe": "cafe|coffee house|snack bar|tearoom|bistro",
}
PLACES: dict[str, tuple[str, ...]] = {name: split(forms) for name, forms in _PLACES.items()}

_WEATHER: dict[str, str] = {
    "sunny": "on a sunny day|under bright sunshine|in sunlight|in fine weather|on a fair day|beneath a sunny sky",
    "clear": "under a clear sky|on a clear day|in fair weather|beneath a cloudless sky",
    "cloudy": "under a cloudy sky|on a cloudy day|beneath clouds|with clouds overhead",
    "partly cloudy": "with some clouds overhead|under scattered clouds|beneath a partly cloudy sky",
    "overcast": "on an overcast day|under a grey sky|in dull weather|on a gloomy day|beneath a blanket of clouds",
    "hazy": "in hazy air|on a hazy day|in misty weather",
    "foggy": "in fog|in misty weather|on a foggy day",
    "dusk": "at dusk|at twilight|in the fading light",
    "evening": "in the evening|in evening light|late in the day",
    "low sun": "under a low sun|with long shadows|in slanting sunlight",
    "morning": "in the morning|in morning light|early in the day",
    "night": "at night|after dark|in the dark",
    "rain": "in the rain|on a rainy day|in wet weather",
    "rainy": "in the rain|on a rainy day|in wet weather",
}
WEATHER: dict[str, tuple[str, ...]] = {name: split(forms) for name, forms in _WEATHER.items()}

SHOT = (
    "(a photo|a picture|an image|a photograph|a snapshot|a shot|a view|a colour photo|a digital photo|a camera image|"
    "a still|a frame|a snap|a photographic view|a colour picture|a glimpse|an amateur photo|a plain photograph|"
    "a pictorial record|a camera shot|a visual impression|an ordinary snapshot|a documentary photo)"
)
INDOOR_SHOT = "(an indoor photo|an interior shot|an indoor view|an interior picture|a photo taken indoors)"
OUTDOOR_SHOT = (
    "(an outdoor photo|an outdoor shot|a street view|a street scene|a photo taken outdoors|an exterior view|"
    "a roadside picture|an open-air photograph)"
)
SHOWING = (
    "(of|showing|depicting|that shows|displaying|portraying|presenting|featuring|capturing|picturing|revealing|"
    "with a view of|taken in|made in)"
)
DOWN = "(seen from above|looking down|from a raised viewpoint|viewed at a downward angle|with the lens tilted down)"
UP = "(seen from below|looking up|viewed at an upward angle|with the lens tilted up)"
DARK = "(dim|dark|dimly lit|shadowy|murky|gloomy|sombre|poorly lit|dusky|underexposed)"
BRIGHT = "(bright|light|well-lit|brightly lit|radiant|luminous|glowing|airy)"
GRAINY = "the (picture|image|photo) is (grainy|noisy|coarse-grained)"
BLURRY = "the (picture|image|photo) is (blurry|blurred|soft-focus|unsharp|fuzzy)"
WARM = "(in warm tones|with a warm colour cast|with a warm tint|in warm hues|with a golden tinge)"
COOL = "(in cool tones|with a cool colour cast|with a bluish tint|in cold hues|with a chilly tinge)"
NOBODY = (
    "(no people|nobody|no one|no person|not a soul|not a single human) (in sight|around|present|to be seen|visible|"
    "in the picture|anywhere)"
)
NO_TRAFFIC = "(no vehicles|no traffic|no cars or trucks) (in sight|around|present|to be seen|visible|passing|anywhere)"

WITH = (
    "(with|containing|including|furnished with|equipped with|holding|fitted out with|where there is|in which we see|"
    "in which one finds|complete with|that has|housing|boasting)"
)
ROAD_WITH = (
    "(with|including|where there is|in which we see|in which one finds|featuring|that has|complete with|along with)"
)
THERE = (
    "(there is|we see|you can see|one sees|here is|"
    "the picture shows|the scene contains|visible here:|the view includes|"
    "in sight:|the photo features|the camera has caught|I see|I can see|you will notice|note|observe|the image depicts|"
    "in the frame:|we can make out|one can spot|our eyes meet|the observer finds|present:|one notices|it shows|"
    "the shot captures|there appears)"
)
STANDS = "(standing|placed|located|positioned|set|sitting|resting|situated|put|arranged)"
RISES = "(standing|located|situated)"  # of what nobody moves or what moves itself
LIES = "(lying|placed|resting|laid|spread out|set)"
HANGS = "(hanging|mounted|fixed|attached|fastened|suspended)"

# Kinds of road one is "in" or "at" rather than "on".
IN_PLACES = split(
    "car park|parking lot|parking area|rural settlement|suburban neighbourhood|residential area|park|"
    "public garden|suburb"
)
AT_PLACES = split("crossroads|intersection|road junction|junction|crossing|edge of town|square|plaza")

# Words of position in the picture; those of left and right are mirrored by ``flip``.
SIDES: dict[str, str] = {
    "left": "(on the left|at the left|to the left|on the left side|on the left-hand side|in the left part)",
    "right": "(on the right|at the right|to the right|on the right side|on the right-hand side|in the right part)",
    "middle": "(in the middle|in the centre|in the center|at the centre|centrally placed|halfway across)",
    "top": "(at the top|in the upper part|up high in the picture|at the upper edge)",
    "bottom": "(at the bottom|in the lower part|down low in the picture|at the lower edge)",
}
RELATION_WORDS: dict[str, str] = {
    "left": "(left of|to the left of|on the left of|on the left-hand side of)",
    "right": "(right of|to the right of|on the right of|on the right-hand side of)",
    "above": "(above|over|higher up than|directly above)",
    "below": "(below|lower down than|directly below)",
    "front": "(in front of|before|ahead of)",
    "behind": "(behind|in back of|beyond)",
    "next": "(next to|beside|by|alongside|adjacent to|neighbouring|side by side with|at the side of|by the side of)",
    "on": "(on|on top of|upon|atop)",
    "under": "(under|beneath|underneath)",
}
HELD_WORDS: dict[str, str] = {"wall": "(on|against)", "ceiling": "(from|on)"}

NUMBERS = split(
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty"
)
TENS = {
    30: "thirty",
    40: "forty",
    50: "fifty",
    60: "sixty",
    70: "seventy",
    80: "eighty",
    90: "ninety",
    100: "a hundred",
}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
SEVERAL = "(several|a number of|various|multiple|a handful of|numerous|some)"

ABOUT = "(about|around|roughly|approximately|some|circa|an estimated|more or less)"
METRES = "(m|metres|meters|metres|meters)"
AWAY = "(away|from the camera|from here|off|distant|from the viewer|from the lens|from where the photo was taken)"
CLOSE = "(close|nearby|close by|at close range|near the camera|within reach|a step away)"
FAR = "(far away|far off|in the distance|at a great distance|a long way off|remote)"
SMALL_DEPTH = "(a small space|a cramped space|a confined space|a tight spot|a snug space)"
LARGE_DEPTH = "(a large space|a spacious place|a long view|a wide open space|an expansive place)"

WHICH = (
    "(that you can see|visible here|in the picture|in this image|in the photo|shown here|in view|in this scene|here)"
)
ASK = (
    "(find|show|point to|point at|point out|select|segment|highlight|mark|locate|outline|where is|pick out|identify|"
    "indicate|look for|spot|detect|trace|single out|I mean|I want|give me|choose|track down|draw around|cut out|"
    "get|isolate|which pixels belong to|click on|pinpoint)"
)

# Sentences of captions; ``list`` is the things, ``with`` and the others are chosen by the caption.
TITLES = (
    "{place}",
    "{shot} (of) {a_place}",
    "{shot} {showing} {a_place}",
    "{a_place}",
    "{look} {a_place}",
)
OPENINGS = (
    "{shot} {showing} {a_place}",
    "{a_place}",
    "this is {a_place}",
    "{look} {a_place}",
    "(this looks like|welcome to|imagine|picture|let us look at|what you see is|it is|before us:|look:) {a_place}",
    "{kind}: {a_place}",
)
LISTS = (
    "{there} {list}",
    "{list} "
    "(are visible|can be seen|are in view|are in the picture|appear|come into view|are present|stand out|show up)",
    "{list}",
)
PATTERNS_OF_LISTS = (
    "{opening} {with} {list}",
    "{opening}. {there} {list}",
    "{list} {where} {a_place}",
    "{place}, {list}",
    "{place}: {list}",
    "{where} {a_place}, {there} {list}",
    "{list}; {a_place}",
)
LOOK_INTO = "(inside|view into|here we look into|we are in|the camera looks into|a look into)"
LOOK_ALONG = "(a view of|here we look at|out and about:|the camera looks at|a look at|a scene of)"
AGREEING = (("there is", "there are"), ("here is", "here are"), ("there appears", "there appear"))
INDOORS = "(an interior|indoors|inside|interior view)"
OUTDOORS = "(outdoors|outside|in the open)"
AND = (" and ", " and ", ", and ", ", plus ", " as well as ", " along with ")
FOUND = "(|||located|placed|found|situated|seen)"
FAR_WALL = "the (far|opposite|farthest) wall is {distance}"
NEAREST = "(nearest|closest) {be} the {n}, {distance}"
WITHIN = "(nothing|no thing|no surface|not a thing) is (farther|further) than {metres} (metres|meters|m)"
REACH = "the view reaches more than {metres} (metres|meters|m) (far|deep|into the distance)"

# Patterns of referring expressions: ``n`` is the noun with its adjectives, ``p`` its plural, SIDE a phrase of place.
AT: dict[str, tuple[str, ...]] = {
    "left": ("{n} SIDE", "left {n}", "{n} left", "left-hand {n}", "{n} (nearer|closer) to the left edge"),
    "right": ("{n} SIDE", "right {n}", "{n} right", "right-hand {n}", "{n} (nearer|closer) to the right edge"),
    "top": ("{n} SIDE", "upper {n}", "top {n}", "{n} (higher|further) up in the picture"),
    "bottom": ("{n} SIDE", "lower {n}", "bottom {n}", "{n} (lower|further) down in the picture"),
    "middle": ("{n} SIDE", "middle {n}", "central {n}", "center {n}", "centre {n}"),
    "leftmost": ("leftmost {n}", "{n} farthest to the left", "{n} (most|furthest) left", "{n} at the far left"),
    "rightmost": ("rightmost {n}", "{n} farthest to the right", "{n} (most|furthest) right", "{n} at the far right"),
    "topmost": ("topmost {n}", "highest {n} in the picture", "uppermost {n}", "{n} furthest up"),
    "bottommost": ("bottommost {n}", "lowest {n} in the picture", "lowermost {n}", "{n} furthest down"),
}
EXTREMES: dict[str, tuple[str, ...]] = {
    "nearest": (
        "nearest {n}",
        "closest {n}",
        "{n} (closest|nearest) to (us|the camera|the viewer|me)",
        "frontmost {n}",
        "{n} at the very front",
    ),
    "farthest": (
        "farthest {n}",
        "furthest {n}",
        "most distant {n}",
        "remotest {n}",
        "{n} (farthest|furthest) from (us|the camera|the viewer|me)",
        "{n} (farthest|furthest) away",
        "rearmost {n}",
    ),
    "nearer": (
        "closer of the two {p}",
        "nearer of the two {p}",
        "{n} that {be} closer than the other",
        "closer {n}",
        "nearer {n}",
    ),
    "farther": (
        "farther of the two {p}",
        "more distant {n}",
        "{n} that {be} further away than the other",
        "further {n}",
    ),
    "bigger": (
        "bigger of the two {p}",
        "larger {n}",
        "bigger {n}",
        "{n} that {be} bigger than the other",
        "larger one of the {p}",
    ),
    "smaller": (
        "smaller of the two {p}",
        "smaller {n}",
        "{n} that {be} smaller than the other",
        "lesser of the two {p}",
    ),
    "taller": ("taller of the two {p}", "taller {n}", "{n} that {be} taller than the other", "{n} of greater height"),
    "shorter": (
        "shorter of the two {p}",
        "lower of the two {p} in height",
        "{n} that {be} shorter than the other",
        "less tall {n}",
    ),
}
COUNTED = (
    "{word} {n} from the {start}",
    "{word} {n} (counting|counted|starting) from the {start}",
    "{word} {n} from {start} to {end}",
    "{word} of the {p} from the {start}",
    "{n} number {count} from the {start}",
)
# Small words that are written where phrases are put together; only `vocabulary` reads them.
GLUE = "a an the some and with is are one of from to at away that on only where half metre meter number in more than"

_IRREGULAR = {
    "person": "people",
    "human being": "human beings",
    "passer-by": "passers-by",
    "chest of drawers": "chests of drawers",
    "block of flats": "blocks of flats",
    "sheet of paper": "sheets of paper",
    "set of shelves": "sets of shelves",
    "pair of shoes": "pairs of shoes",
    "row of shrubs": "rows of shrubs",
    "piece of furniture": "pieces of furniture",
    "place to sit": "places to sit",
    "shelf": "shelves",
    "bookshelf": "bookshelves",
    "ceiling": "ceilings",
}
_PLURAL_ONLY = frozenset(
    split(
        "books|volumes|blinds|window blinds|window shades|shelves|clothes|garments|shoes|toy blocks|building blocks|"
        "wooden bricks"
    )
)
_MASS = frozenset(
    split(
        "flooring|grass|turf|"
        "greensward|farmland|shelving|paper|paperwork|artwork|reading matter|clothing|apparel|"
        "footwear|fencing|paling|greenery|ground|soap|hand soap"
    )
)
_LONG_U = re.compile(r"^(uni|use|util|eu|one\b|once|u-)")
_SILENT_H = re.compile(r"^(hour|honest|heir)")
_CHOICE = re.compile(r"\(([^()]*)\)")
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")


def pick(options: tuple[str, ...] | list[str], rng: np.random.Generator) -> str:
    """One of them."""
    return options[int(rng.random() * len(options))]


def vary(phrase: str, rng: np.random.Generator) -> str:
    """The phrase with one choice made for each parenthesis, the innermost first."""
    while "(" in phrase:
        phrase = _CHOICE.sub(lambda found: pick(split(found.group(1)), rng), phrase)
    return phrase


def noun_forms(name: str) -> tuple[str, ...]:
    """What a class may be called; an unknown class only by its name."""
    return NOUNS.get(name) or (name,)


@cache
def named(noun: str) -> frozenset[str]:
    """Classes that a noun names, as it stands or in the plural; an unknown one names its own."""
    return frozenset({noun, *(name for name, forms in NOUNS.items() if noun in {*forms, *map(plural, forms)})})


def once(text: str) -> str:
    """Without a material that its noun says again: "paper paper", "wooden wooden bricks"."""
    return re.sub(r"\b(paper|wooden) (?=\1)", "", text)


def is_plural(noun: str) -> bool:
    """Whether the noun is plural as it stands ("books")."""
    return noun in _PLURAL_ONLY


def is_mass(noun: str) -> bool:
    """Whether the noun is not counted ("grass")."""
    return noun in _MASS


def plural(noun: str) -> str:
    """The plural of a noun of one or more words; mass nouns and plurals stay as they are."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if is_plural(noun) or is_mass(noun):
        return noun
    for link in (" of ", " to ", " for ", " that "):
        if link in noun:
            head, tail = noun.split(link, 1)
            return f"{plural(head)}{link}{tail}"
    *front, last = noun.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = f"{last[:-1]}ies"
    elif last.endswith(("shelf", "leaf", "loaf", "half")):
        last = f"{last[:-1]}ves"
    else:
        last += "s"
    return " ".join([*front, last])


def article(text: str) -> str:
    """``a`` or ``an``, as the sound of the text's beginning asks."""
    low = text.lower()
    vowel = (low[:1] in "aeiou" and not _LONG_U.match(low)) or bool(_SILENT_H.match(low))
    return "an" if vowel else "a"


def indefinite(adjectives: str, noun: str) -> str:
    """``a red chair``, ``some white books``, ``green grass``."""
    text = f"{adjectives} {noun}".strip()
    if is_plural(noun):
        return f"some {text}"
    return text if is_mass(noun) else f"{article(text)} {text}"


def number(count: int) -> str:
    """A count as a word."""
    if count <= 20:
        return NUMBERS[count]
    return TENS.get(count, str(count))


def colour_forms(colour: str) -> tuple[str, ...]:
    """What a colour may be called."""
    return COLOURS.get(colour) or (colour,)


def material_forms(material: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adjectives for a material, and phrases that follow the noun."""
    return MATERIALS.get(material) or ((material,), (f"made of {material}",))


def pattern_forms(pattern: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adjectives for a pattern, and phrases that follow the noun."""
    return PATTERNS.get(pattern) or ((pattern,), (f"that is {pattern}",))


def place_forms(place: str) -> tuple[str, ...]:
    """What a kind of place may be called."""
    return PLACES.get(place) or (place,)


def whereabouts(place: str, kind: str) -> str:
    """The preposition of a place, called so, in a ``room`` or a ``road``."""
    if kind == "room" or place in IN_PLACES:
        return "in"
    return "at" if place in AT_PLACES else "on"


def weather_forms(weather: str) -> tuple[str, ...]:
    """Phrases for a kind of weather."""
    return WEATHER.get(weather) or (f"in {weather} weather",)


@cache
def alike(name: str, form: str = "") -> frozenset[str]:
    """Classes that a listener might take for this one, itself among them.

    Args:
        name: class or hypernym.
        form: the noun used; without one, whatever any of the class's forms may mean.
    """
    if name in HYPERNYMS:
        return frozenset(other for member in HYPERNYMS[name] for other in alike(member))
    forms = (form,) if form else noun_forms(name)
    heads = {_head(one) for one in noun_forms(name)}
    found = {name}
    found.update(other for group in _ALIKE if name in group for other in group)
    found.update(other for other in NOUNS if heads & {_head(one) for one in NOUNS[other]})
    found.update(other for one in forms for other in _LOOSE.get(one, ()))
    return frozenset(found)


def _head(noun: str) -> str:
    """The word that says what it is: the last one, or that before "of"."""
    return noun.split(" of ")[0].split(" ")[-1]


@cache
def near_colours(colour: str) -> frozenset[str]:
    """Colours that might be called so too; no colour at all might be called anything."""
    inverse = (other for other, near in _NEXT_COLOURS.items() if colour in split(near))
    return frozenset({colour, "", *split(_NEXT_COLOURS.get(colour, "")), *inverse})


@cache
def near_materials(material: str) -> frozenset[str]:
    """Materials that might be taken for this one; an unnamed one might be anything."""
    return frozenset({material, "", *(other for group in _NEXT_MATERIALS if material in group for other in group)})


def flip(text: str) -> str:
    """The text for the mirrored picture: left and right change places."""
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LEFT": "RIGHT", "RIGHT": "LEFT"}
    return _FLIPPED.sub(lambda found: swap.get(found.group(0), found.group(0)), text)


# "bright", "upright" hold no side; "left-hand" and "leftmost" do.
_FLIPPED = re.compile(r"\b(?:left|right|Left|Right|LEFT|RIGHT)(?=\b|most|wards?\b|hand\b)")


def words_of(value: object) -> set[str]:
    """The distinct words, in lower case, of every phrase in a nest of tables; slots in braces are left out."""
    if isinstance(value, str):
        return {word.lower() for word in _WORD.findall(re.sub(r"\{[^}]*\}", " ", value))}
    if isinstance(value, Mapping):
        return words_of(tuple(value.values())) | words_of(tuple(value))
    if isinstance(value, Iterable):
        return {word for one in value for word in words_of(one)}
    return set()


def vocabulary() -> set[str]:
    """Every word that captions and expressions of known classes can hold, in lower case."""
    nouns = tuple(form for forms in NOUNS.values() for form in forms)
    tables = [value for name, value in sorted(globals().items()) if name.isupper() and not name.startswith("_")]
    return words_of(tables) | words_of([plural(noun) for noun in (*nouns, *HYPERNYMS)])
