"""The words of the built-in corpus: topics, things, beings, adjectives, words with two senses. Spanish and English.

Nouns and verbs are written "singular plural"; a Spanish noun is followed by its gender, m or f, a Spanish adjective by
nothing: its four forms follow from the first.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun. `gender` is "m" or "f", and "" in English."""

    singular: str
    plural: str
    gender: str

    def form(self, number: str) -> str:
        """The form for number "s" or "p"."""
        return self.singular if number == "s" else self.plural


@dataclass(frozen=True, slots=True)
class Being:
    """A being and what it, more than others, does: an intransitive verb."""

    noun: Noun
    verb: Noun


@dataclass(frozen=True, slots=True)
class Topic:
    """What a story is about. No other topic has one of its places, which is how the opening gives the topic away."""

    name: str
    places: tuple[Noun, ...]
    things: tuple[Noun, ...]
    beings: tuple[Being, ...]
    deeds: tuple[Noun, ...]


@dataclass(frozen=True, slots=True)
class Sense:
    """One of a word's two senses. Its predicates' first words belong to this sense alone, of the word's two."""

    word: str
    topic: str
    clue: str
    predicates: tuple[str, ...]


def _noun(text: str) -> Noun:
    singular, plural, *gender = text.split()
    return Noun(singular, plural, gender[0] if gender else "")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _nouns(text: str) -> tuple[Noun, ...]:
    return tuple(_noun(part.strip()) for part in text.split(","))


def _beings(text: str) -> tuple[Being, ...]:
    halves = [part.split(":") for part in text.split(",")]
    return tuple(Being(_noun(noun), _noun(verb)) for noun, verb in halves)


def _place(text: str) -> Noun:
    singular, *gender = text.split()
    return Noun(singular, singular, gender[0] if gender else "")


def _topic(name: str, *, places: str, things: str, beings: str, deeds: str) -> Topic:
    found = tuple(_place(part.strip()) for part in places.split(","))
    return Topic(name, found, _nouns(things), _beings(beings), _nouns(deeds))


def _sense(word: str, topic: str, clue: str, *predicates: str) -> Sense:
    return Sense(word, topic, clue, predicates)


SPANISH_NAMES = {
    "woman": _words("María Lucía Carmen Elena Rosa Julia Teresa Inés"),
    "man": _words("Juan Pedro Luis Carlos Diego Andrés Pablo Mateo"),
}
ENGLISH_NAMES = {
    "woman": _words("Mary Alice Emma Susan Helen Grace Anna Kate"),
    "man": _words("John Peter James Henry Frank George Paul Tom"),
}

SPANISH_TOPICS = (
    _topic(
        "neighbourhood",
        places="vecindario m, plaza f",
        things="bicicleta bicicletas f, pelota pelotas f, farola farolas f, muro muros m, balcón balcones m, "
        "letrero letreros m",
        beings="perro perros m: ladra ladran, gato gatos m: maúlla maúllan, gallina gallinas f: cacarea cacarean, "
        "vecina vecinas f: saluda saludan",
        deeds="señala señalan, pinta pintan",
    ),
    _topic(
        "kitchen",
        places="cocina f, comedor m",
        things="olla ollas f, taza tazas f, cuchara cucharas f, plato platos m, vaso vasos m, horno hornos m",
        beings="cocinero cocineros m: canta cantan, abuela abuelas f: teje tejen, bebé bebés m: llora lloran, "
        "mosca moscas f: zumba zumban",
        deeds="lava lavan, llena llenan",
    ),
    _topic(
        "school",
        places="escuela f, colegio m",
        things="regla reglas f, mochila mochilas f, pizarra pizarras f, cuaderno cuadernos m, mapa mapas m, "
        "estuche estuches m",
        beings="maestra maestras f: enseña enseñan, alumno alumnos m: estudia estudian, "
        "director directores m: habla hablan, niña niñas f: juega juegan",
        deeds="dibuja dibujan, copia copian",
    ),
    _topic(
        "workshop",
        places="taller m, garaje m",
        things="rueda ruedas f, tuerca tuercas f, escalera escaleras f, martillo martillos m, motor motores m, "
        "clavo clavos m",
        beings="mecánico mecánicos m: trabaja trabajan, aprendiz aprendices m: aprende aprenden, "
        "pintora pintoras f: pinta pintan, clienta clientas f: paga pagan",
        deeds="arregla arreglan, mide miden",
    ),
    _topic(
        "river",
        places="río m, orilla f",
        things="piedra piedras f, barca barcas f, red redes f, puente puentes m, remo remos m, árbol árboles m",
        beings="pescador pescadores m: pesca pescan, rana ranas f: croa croan, pato patos m: nada nadan, "
        "garza garzas f: vuela vuelan",
        deeds="moja mojan, cruza cruzan",
    ),
    _topic(
        "market",
        places="mercado m, feria f",
        things="manzana manzanas f, canasta canastas f, moneda monedas f, queso quesos m, billete billetes m, "
        "puesto puestos m",
        beings="vendedora vendedoras f: grita gritan, panadero panaderos m: amasa amasan, "
        "cajera cajeras f: suma suman, ladrón ladrones m: huye huyen",
        deeds="compra compran, vende venden",
    ),
)
SPANISH_THINGS = _nouns(
    "llave llaves f, puerta puertas f, caja cajas f, ventana ventanas f, reloj relojes m, cajón cajones m, "
    "papel papeles m, zapato zapatos m"
)
SPANISH_PLACES = _nouns(
    "cuadra cuadras f, casa casas f, calle calles f, barrio barrios m, pueblo pueblos m, edificio edificios m"
)
SPANISH_ADJECTIVES = _words("viejo nuevo limpio sucio roto blanco negro rojo pequeño seco")
SPANISH_MOODS = _words("cansado contento enojado enfermo ocupado sorprendido")
SPANISH_COMMON_MOODS = _words("triste feliz alegre impaciente")
SPANISH_COMMON_VERBS = _nouns("duerme duermen, corre corren, descansa descansan, espera esperan")
SPANISH_DEEDS = _nouns("limpia limpian, guarda guardan, busca buscan, lleva llevan, mira miran, quiere quieren")
SPANISH_RELATIVE_VERBS = _nouns(
    "perseguía perseguían, miraba miraban, buscaba buscaban, seguía seguían, esperaba esperaban, conocía conocían"
)
SPANISH_PLACE_VERBS = _nouns("vive viven, duerme duermen, juega juegan, está están")
SPANISH_THING_VERBS = _nouns("brilla brillan, falta faltan, tiembla tiemblan, cruje crujen")
SPANISH_SENSES = (
    _sense("el gato", "neighbourhood", "de la vecina", "persigue al ratón", "bebe leche", "salta al tejado"),
    _sense("el gato", "workshop", "del mecánico", "levanta el coche", "sostiene la rueda", "tiene una palanca"),
    _sense("el banco", "river", "de madera", "tiene cuatro patas", "está bajo un árbol", "cruje con el peso"),
    _sense("el banco", "market", "de la ciudad", "presta dinero", "abre a las nueve", "cobra intereses"),
    _sense("la llama", "neighbourhood", "de la granja", "come hierba", "escupe al granjero", "camina despacio"),
    _sense("la llama", "kitchen", "de la vela", "quema el papel", "calienta el agua", "da luz"),
    _sense("la hoja", "river", "del árbol", "flota en el agua", "cae en otoño", "cambia de color"),
    _sense("la hoja", "school", "del cuaderno", "tiene una tarea", "lleva la fecha", "queda en blanco"),
    _sense("la sierra", "workshop", "del carpintero", "corta la madera", "necesita aceite", "tiene dientes"),
    _sense("la sierra", "river", "del norte", "guarda la nieve", "separa los valles", "está llena de pinos"),
    _sense("la copa", "kitchen", "de cristal", "contiene vino", "adorna la mesa", "suena al brindar"),
    _sense("la copa", "school", "del torneo", "premia al equipo", "pasa al ganador", "llega cada verano"),
)

ENGLISH_TOPICS = (
    _topic(
        "neighbourhood",
        places="neighborhood, square",
        things="bicycle bicycles, ball balls, fence fences, lamp lamps, balcony balconies, sign signs",
        beings="dog dogs: barks bark, cat cats: meows meow, rooster roosters: crows crow, "
        "neighbor neighbors: waves wave",
        deeds="paints paint, draws draw",
    ),
    _topic(
        "kitchen",
        places="kitchen, pantry",
        things="pot pots, cup cups, spoon spoons, plate plates, glass glasses, oven ovens",
        beings="cook cooks: sings sing, grandmother grandmothers: knits knit, baby babies: cries cry, "
        "fly flies: buzzes buzz",
        deeds="washes wash, fills fill",
    ),
    _topic(
        "school",
        places="school, library",
        things="notebook notebooks, ruler rulers, backpack backpacks, map maps, pencil pencils, board boards",
        beings="teacher teachers: explains explain, student students: studies study, "
        "principal principals: talks talk, girl girls: plays play",
        deeds="copies copy, erases erase",
    ),
    _topic(
        "workshop",
        places="workshop, garage",
        things="hammer hammers, engine engines, nail nails, wheel wheels, ladder ladders, screw screws",
        beings="mechanic mechanics: works work, apprentice apprentices: learns learn, "
        "painter painters: paints paint, customer customers: pays pay",
        deeds="repairs repair, measures measure",
    ),
    _topic(
        "river",
        places="river, shore",
        things="stone stones, boat boats, net nets, bridge bridges, oar oars, tree trees",
        beings="sailor sailors: rows row, frog frogs: croaks croak, duck ducks: swims swim, heron herons: dives dive",
        deeds="touches touch, pulls pull",
    ),
    _topic(
        "market",
        places="market, fair",
        things="apple apples, basket baskets, coin coins, cheese cheeses, ticket tickets, stall stalls",
        beings="seller sellers: shouts shout, baker bakers: kneads knead, cashier cashiers: counts count, "
        "thief thieves: escapes escape",
        deeds="buys buy, sells sell",
    ),
)
ENGLISH_THINGS = _nouns(
    "key keys, door doors, box boxes, window windows, clock clocks, drawer drawers, cabinet cabinets, shoe shoes"
)
ENGLISH_PLACES = _nouns("street streets, block blocks, house houses, town towns, building buildings, corner corners")
ENGLISH_ADJECTIVES = _words("old new clean dirty broken white black red small dry")
ENGLISH_MOODS = _words("tired happy angry sick busy sad surprised hungry")
ENGLISH_COMMON_VERBS = _nouns("sleeps sleep, runs run, rests rest, waits wait")
ENGLISH_DEEDS = _nouns("cleans clean, keeps keep, finds find, carries carry, sees see, wants want")
ENGLISH_RELATIVE_VERBS = _words("chased watched followed visited missed remembered")
ENGLISH_PLACE_VERBS = _nouns("lives live, sleeps sleep, plays play, stays stay")
ENGLISH_THING_VERBS = _nouns("shines shine, falls fall, shakes shake, creaks creak")
ENGLISH_SENSES = (
    _sense("the bank", "river", "of the river", "is muddy", "floods in winter", "hides the frogs"),
    _sense("the bank", "market", "of the city", "lends money", "opens at nine", "charges interest"),
    _sense("the bat", "neighbourhood", "from the cave", "hunts at night", "eats insects", "hangs from a branch"),
    _sense("the bat", "school", "of the player", "hits the ball", "weighs two pounds", "leans on the wall"),
    _sense("the spring", "river", "of fresh water", "feeds the lake", "dries up in summer", "flows all year"),
    _sense("the spring", "workshop", "of the mattress", "squeaks at night", "bends with the weight", "needs oil"),
    _sense("the crane", "river", "with long legs", "catches fish", "builds a nest", "flies south"),
    _sense("the crane", "workshop", "of the builder", "lifts bricks", "moves the beams", "needs fuel"),
    _sense("the mouse", "kitchen", "with the tail", "eats cheese", "fears the cat", "hides in a hole"),
    _sense("the mouse", "school", "of the computer", "clicks twice", "moves the arrow", "needs a battery"),
    _sense("the trunk", "neighbourhood", "of the oak", "grows slowly", "holds the branches", "has rough bark"),
    _sense("the trunk", "workshop", "of the car", "carries the bags", "closes with a key", "opens from inside"),
)
