"""The words of the built-in corpus of translation pairs, each with its translation.

A noun is written "singular plural gender: singular plural", a verb "singular plural: singular plural" (once in English
where both are alike), an adjective in -o as its masculine, any other as "singular plural". "_" stands for a space.

Within a topic each Spanish content word has one English one and the reverse. Across topics some have two; the place
of the opening tells which is meant: banco (bench, bank), gato (cat, jack), hoja (leaf, sheet) and vela (candle, sail);
bank (banco, orilla), bat (bate, murciélago), crane (grulla, grúa) and spring (manantial, resorte). Within a sentence
the object tells tocar (touch) from tocar (play), and the syntax the saw from saw, the flies from flies, the cooks from
cooks, sobre (envelope) from sobre (on), cocina (kitchen) from cocina (cooks).

No noun is alike in both numbers in English (sheep, fish), and no Spanish one is feminine with "el" (agua).
"""

from dataclasses import dataclass
from typing import NamedTuple

from .world_grammar import adjective as ending_in_o


class Pair(NamedTuple):
    """The same in both languages."""

    spanish: str
    english: str


@dataclass(frozen=True, slots=True)
class _Inflected:
    """A word that has a number."""

    singular: Pair
    plural: Pair

    def form(self, number: str) -> Pair:
        """The form for number "s" or "p"."""
        return self.singular if number == "s" else self.plural


@dataclass(frozen=True, slots=True)
class Noun(_Inflected):
    """A noun; `gender` is that of the Spanish one, "m" or "f"."""

    gender: str


@dataclass(frozen=True, slots=True)
class Verb(_Inflected):
    """The third persons of one tense."""


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective; `spanish` holds its form for "ms", "mp", "fs" and "fp" (gender, number)."""

    spanish: dict[str, str]
    english: str

    def form(self, agreement: str) -> Pair:
        """The form for gender and number, such as "fp"."""
        return Pair(self.spanish[agreement], self.english)


@dataclass(frozen=True, slots=True)
class Place:
    """A place, and the English preposition of those who are there; in Spanish it is always "en"."""

    noun: Noun
    preposition: str


@dataclass(frozen=True, slots=True)
class Being:
    """A person or an animal, and what it does more than others."""

    noun: Noun
    verb: Verb
    is_person: bool


@dataclass(frozen=True, slots=True)
class Topic:
    """What a story is about. Things can be carried and fixtures can not; no other topic has one of its places."""

    name: str
    places: tuple[Place, ...]
    things: tuple[Noun, ...]
    fixtures: tuple[Noun, ...]
    beings: tuple[Being, ...]


def _halves(text: str) -> tuple[list[str], list[str]]:
    spanish, english = text.split(":")
    return _words(spanish), _words(english)


def _words(text: str) -> list[str]:
    return [word.replace("_", " ") for word in text.split()]


def _noun(text: str) -> Noun:
    (singular, plural, gender), english = _halves(text)
    return Noun(Pair(singular, english[0]), Pair(plural, english[1]), gender)


def _verb(text: str) -> Verb:
    spanish, english = _halves(text)
    return Verb(Pair(spanish[0], english[0]), Pair(spanish[1], english[-1]))


def _adjective(text: str) -> Adjective:
    spanish, english = _halves(text)
    agreements = [gender + number for gender in "mf" for number in "sp"]
    if len(spanish) == 1:
        forms = {agreement: ending_in_o(spanish[0], *agreement) for agreement in agreements}
    else:
        forms = {agreement: spanish[agreement[1] == "p"] for agreement in agreements}
    return Adjective(forms, english[0])


def _place(text: str) -> Place:
    (spanish, gender), (preposition, english) = _halves(text)
    form = Pair(spanish, english)
    return Place(Noun(form, form, gender), preposition)


def _beings(text: str, *, is_person: bool) -> tuple[Being, ...]:
    halves = [part.split("/") for part in text.split(",")]
    return tuple(Being(_noun(noun), _verb(verb), is_person) for noun, verb in halves)


def _nouns(text: str) -> tuple[Noun, ...]:
    return tuple(_noun(part) for part in text.split(","))


def _verbs(text: str) -> tuple[Verb, ...]:
    return tuple(_verb(part) for part in text.split(","))


def _adjectives(text: str) -> tuple[Adjective, ...]:
    return tuple(_adjective(part) for part in text.split(","))


def _pairs(text: str) -> tuple[Pair, ...]:
    halves = [_halves(part) for part in text.split(",")]
    return tuple(Pair(spanish[0], english[0]) for spanish, english in halves)


def _topic(name: str, *, places: str, things: str, fixtures: str, people: str, animals: str = "") -> Topic:
    beings = _beings(people, is_person=True) + (_beings(animals, is_person=False) if animals else ())
    return Topic(name, tuple(_place(part) for part in places.split(",")), _nouns(things), _nouns(fixtures), beings)


TOPICS = (
    _topic(
        "neighborhood",
        places="barrio m: in neighborhood, plaza f: in square, parque m: in park",
        things="bicicleta bicicletas f: bicycle bicycles, pelota pelotas f: ball balls, cometa cometas f: kite kites, "
        "patín patines m: skate skates, sombrero sombreros m: hat hats, bate bates m: bat bats",
        fixtures="banco bancos m: bench benches, fuente fuentes f: fountain fountains, "
        "farola farolas f: streetlight streetlights, estatua estatuas f: statue statues, "
        "columna columnas f: column columns",
        people="vecino vecinos m: neighbor neighbors / charla charlan: chats chat, "
        "niña niñas f: girl girls / juega juegan: plays play",
        animals="perro perros m: dog dogs / ladra ladran: barks bark, "
        "paloma palomas f: pigeon pigeons / vuela vuelan: flies fly",
    ),
    _topic(
        "kitchen",
        places="cocina f: in kitchen, comedor m: in dining_room, restaurante m: in restaurant",
        things="olla ollas f: pot pots, taza tazas f: cup cups, cuchara cucharas f: spoon spoons, "
        "plato platos m: plate plates, vaso vasos m: glass glasses, cuchillo cuchillos m: knife knives, "
        "tenedor tenedores m: fork forks, vela velas f: candle candles",
        fixtures="horno hornos m: oven ovens, nevera neveras f: refrigerator refrigerators, "
        "estante estantes m: shelf shelves, lámpara lámparas f: lamp lamps, "
        "puerta puertas f: door doors, ventana ventanas f: window windows",
        people="cocinero cocineros m: cook cooks / canta cantan: sings sing, "
        "abuela abuelas f: grandmother grandmothers / cocina cocinan: cooks cook",
        animals="gato gatos m: cat cats / maúlla maúllan: meows meow, mosca moscas f: fly flies / "
        "zumba zumban: buzzes buzz",
    ),
    _topic(
        "school",
        places="escuela f: at school, biblioteca f: in library, gimnasio m: in gym",
        things="regla reglas f: ruler rulers, mochila mochilas f: backpack backpacks, "
        "cuaderno cuadernos m: notebook notebooks, mapa mapas m: map maps, lápiz lápices m: pencil pencils, "
        "hoja hojas f: sheet sheets",
        fixtures="pizarra pizarras f: blackboard blackboards, pupitre pupitres m: desk desks, "
        "cartel carteles m: poster posters, puerta puertas f: door doors, "
        "ventana ventanas f: window windows, pared paredes f: wall walls",
        people="maestra maestras f: teacher teachers / enseña enseñan: teaches teach, "
        "alumno alumnos m: student students / estudia estudian: studies study, "
        "directora directoras f: principal principals / habla hablan: talks talk, "
        "bibliotecario bibliotecarios m: librarian librarians / lee leen: reads read",
    ),
    _topic(
        "workshop",
        places="taller m: in workshop, garaje m: in garage, fábrica f: in factory",
        things="rueda ruedas f: wheel wheels, tuerca tuercas f: nut nuts, martillo martillos m: hammer hammers, "
        "clavo clavos m: nail nails, tornillo tornillos m: screw screws, sierra sierras f: saw saws, "
        "gato gatos m: jack jacks, resorte resortes m: spring springs",
        fixtures="motor motores m: engine engines, grúa grúas f: crane cranes, escalera escaleras f: ladder ladders, "
        "máquina máquinas f: machine machines, puerta puertas f: door doors, pared paredes f: wall walls",
        people="mecánico mecánicos m: mechanic mechanics / trabaja trabajan: works work, "
        "aprendiz aprendices m: apprentice apprentices / aprende aprenden: learns learn, "
        "pintora pintoras f: painter painters / silba silban: whistles whistle, "
        "clienta clientas f: customer customers / paga pagan: pays pay",
    ),
    _topic(
        "river",
        places="río m: at river, lago m: at lake, bosque m: in forest, valle m: in valley",
        things="piedra piedras f: stone stones, red redes f: net nets, remo remos m: oar oars, "
        "hoja hojas f: leaf leaves, concha conchas f: shell shells, vela velas f: sail sails, "
        "rama ramas f: branch branches, cuerda cuerdas f: rope ropes",
        fixtures="puente puentes m: bridge bridges, barca barcas f: boat boats, árbol árboles m: tree trees, "
        "orilla orillas f: bank banks, manantial manantiales m: spring springs",
        people="pescador pescadores m: fisherman fishermen / pesca pescan: fishes fish",
        animals="rana ranas f: frog frogs / croa croan: croaks croak, "
        "pato patos m: duck ducks / nada nadan: swims swim, grulla grullas f: crane cranes / vuela vuelan: flies fly",
    ),
    _topic(
        "market",
        places="mercado m: at market, feria f: at fair, tienda f: in store",
        things="manzana manzanas f: apple apples, canasta canastas f: basket baskets, moneda monedas f: coin coins, "
        "queso quesos m: cheese cheeses, naranja naranjas f: orange oranges, bolsa bolsas f: bag bags, "
        "camisa camisas f: shirt shirts, flor flores f: flower flowers",
        fixtures="puesto puestos m: stall stalls, banco bancos m: bank banks, balanza balanzas f: scale scales, "
        "carro carros m: cart carts, columna columnas f: column columns",
        people="vendedora vendedoras f: seller sellers / grita gritan: shouts shout, "
        "panadero panaderos m: baker bakers / hornea hornean: bakes bake, "
        "cajera cajeras f: cashier cashiers / sonríe sonríen: smiles smile, "
        "ladrón ladrones m: thief thieves / huye huyen: flees flee",
    ),
    _topic(
        "farm",
        places="granja f: on farm, granero m: in barn, establo m: in stable",
        things="huevo huevos m: egg eggs, cubo cubos m: bucket buckets, pala palas f: shovel shovels, "
        "saco sacos m: sack sacks, bota botas f: boot boots",
        fixtures="valla vallas f: fence fences, pozo pozos m: well wells, molino molinos m: mill mills, "
        "tractor tractores m: tractor tractors, puerta puertas f: door doors",
        people="granjera granjeras f: farmer farmers / trabaja trabajan: works work",
        animals="vaca vacas f: cow cows / muge mugen: moos moo, gallina gallinas f: hen hens / "
        "cacarea cacarean: clucks cluck, murciélago murciélagos m: bat bats / vuela vuelan: flies fly, "
        "caballo caballos m: horse horses / galopa galopan: gallops gallop",
    ),
    _topic(
        "home",
        places="casa f: in house, jardín m: in garden, apartamento m: in apartment",
        things="carta cartas f: letter letters, sobre sobres m: envelope envelopes, "
        "almohada almohadas f: pillow pillows, toalla toallas f: towel towels, peine peines m: comb combs, "
        "muñeca muñecas f: doll dolls, cepillo cepillos m: brush brushes",
        fixtures="cama camas f: bed beds, sofá sofás m: sofa sofas, armario armarios m: closet closets, "
        "cortina cortinas f: curtain curtains, "
        "puerta puertas f: door doors, ventana ventanas f: window windows, pared paredes f: wall walls",
        people="bebé bebés m: baby babies / llora lloran: cries cry, tía tías f: aunt aunts / teje tejen: knits knit, "
        "abuelo abuelos m: grandfather grandfathers / ronca roncan: snores snore",
        animals="loro loros m: parrot parrots / habla hablan: talks talk",
    ),
)

THINGS = _nouns(
    "llave llaves f: key keys, caja cajas f: box boxes, libro libros m: book books, reloj relojes m: clock clocks, "
    "zapato zapatos m: shoe shoes, botella botellas f: bottle bottles, cuadro cuadros m: painting paintings"
)
# What other things may lie on or under.
SURFACES = _nouns(
    "mesa mesas f: table tables, silla sillas f: chair chairs, alfombra alfombras f: rug rugs, manta mantas f: "
    "blanket blankets"
)
INSTRUMENTS = _nouns(
    "guitarra guitarras f: guitar guitars, flauta flautas f: flute flutes, tambor tambores m: drum drums, "
    "violín violines m: violin violins"
)
OPENABLE = frozenset(_words("caja libro botella puerta ventana mochila sobre bolsa nevera armario"))
REFLECTIONS = _nouns(
    "espejo espejos m: mirror mirrors, foto fotos f: photo photos, retrato retratos m: portrait portraits"
)

# What a thing is ("ser") and how it is just now ("estar"): English has one verb for both.
QUALITIES = _adjectives(
    "viejo: old, nuevo: new, blanco: white, negro: black, rojo: red, amarillo: yellow, pequeño: small, "
    "grande grandes: big, azul azules: blue, verde verdes: green, gris grises: gray"
)
THING_QUALITIES = _adjectives("pesado: heavy, ligero: light, barato: cheap, caro: expensive")
STATES = _adjectives("limpio: clean, sucio: dirty, mojado: wet, seco: dry, frío: cold")
ANIMAL_QUALITIES = _adjectives(
    "viejo: old, blanco: white, negro: black, pequeño: small, grande grandes: big, gris grises: gray, "
    "joven jóvenes: young"
)
PERSON_QUALITIES = _adjectives(
    "joven jóvenes: young, alto: tall, delgado: thin, amable amables: kind, alegre alegres: cheerful, "
    "fuerte fuertes: strong"
)
MOODS = _adjectives(
    "cansado: tired, contento: happy, enojado: angry, enfermo: sick, preocupado: worried, sorprendido: surprised, "
    "tranquilo: calm, nervioso: nervous, triste tristes: sad"
)
# Spanish has them, English is them.
SENSATIONS = _pairs(
    "hambre: hungry, mucha_hambre: very_hungry, sed: thirsty, mucha_sed: very_thirsty, sueño: sleepy, "
    "mucho_sueño: very_sleepy, frío: cold, mucho_frío: very_cold, miedo: afraid, mucho_miedo: very_afraid, "
    "prisa: in_a_hurry"
)

POSITIONS = _pairs("junto_a: beside, cerca_de: near, detrás_de: behind, delante_de: in_front_of")
SURFACE_POSITIONS = _pairs("sobre: on, bajo: under")
WHEREABOUTS = _pairs("aquí: here, allí: there, cerca: nearby, lejos: far_away, afuera: outside")
TIMES = _pairs("tarde: late, temprano: early")

THING_VERBS = _verbs(
    "brilla brillan: shines shine, se_mueve se_mueven: moves move, se_cae se_caen: falls_down fall_down"
)
LIVING_VERBS = _verbs("vive viven: lives live, está están: is are")
BEING_VERBS = _verbs("duerme duermen: sleeps sleep, corre corren: runs run, descansa descansan: rests rest")
# What a being does to another in a relative clause.
RELATIVE_VERBS = _verbs(
    "persigue persiguen: chases chase, mira miran: looks_at look_at, sigue siguen: follows follow, "
    "busca buscan: looks_for look_for, conoce conocen: knows know, espera esperan: waits_for wait_for"
)
GETTING = _verbs("encontró encontraron: found, compró compraron: bought, tomó tomaron: took, pidió pidieron: asked_for")
# None of them is done to a person, so that "la perdió" is "lost it" and never "lost her".
HANDLING = _verbs(
    "guardó guardaron: kept, limpió limpiaron: cleaned, perdió perdieron: lost, "
    "vendió vendieron: sold, usó usaron: used, devolvió devolvieron: returned"
)
OPENING_VERBS = _verbs("abrió abrieron: opened, cerró cerraron: closed")
OTHER_DEEDS = _verbs(
    "tocó tocaron: touched, escondió escondieron: hid, empujó empujaron: pushed, levantó levantaron: lifted, "
    "olvidó olvidaron: forgot"
)
FIXTURE_DEEDS = _verbs(
    "pintó pintaron: painted, midió midieron: measured, dibujó dibujaron: drew, limpió limpiaron: cleaned, "
    "miró miraron: looked_at"
)
PLAYING = _verb("tocó tocaron: played")
TO_PLAY = Pair("tocar", "play")
GIVING = _pairs("dio: gave, prestó: lent, mostró: showed, ofreció: offered, trajo: brought, envió: sent")
MEETING = _pairs("vio: saw, llamó: called, escuchó: listened_to, esperó: waited_for, buscó: looked_for")
GREETING = _pairs(
    "saludó: greeted, abrazó: hugged, invitó: invited, ayudó: helped, siguió: followed, acompañó: accompanied"
)
# Their Spanish ends with the preposition that contracts.
MOVING = _verbs(
    "volvió_a volvieron_a: came_back_to, salió_de salieron_de: left, llegó_a llegaron_a: arrived_at, "
    "corrió_hacia corrieron_hacia: ran_toward, entró_en entraron_en: entered"
)
REFLECTING = _pairs("miró: looked_at, vio: saw, reconoció: recognized")
SETTLING = _verbs("se_sentó se_sentaron: sat_down, se_quedó se_quedaron: stayed, se_cayó se_cayeron: fell_down")
WAKING = _verbs(
    "se_despertó se_despertaron: woke_up, se_levantó se_levantaron: got_up, se_durmió se_durmieron: fell_asleep"
)
CONTINUING = _pairs("esperaba: was_waiting_for, buscaba: was_looking_for, conocía: knew")
HAVING = _pairs("tiene: has, necesita: needs, busca: looks_for, guarda: keeps")
WISHES = _pairs(
    "dormir: sleep, jugar: play, comer: eat, cantar: sing, bailar: dance, trabajar: work, descansar: rest, leer: read"
)
PLANS = _pairs("comprar: buy, vender: sell, usar: use, limpiar: clean, encontrar: find, guardar: keep, dibujar: draw")
