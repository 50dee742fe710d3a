"""What the Asterisk prompts say: the packages' listings, read and corrected.

A listing has a line `key: text` for each recording. Some lines are no speech, some hold notes to
the speaker, and the spelling is that of many hands; the corrections here come from reading the
listings and from what a recogniser heard. This module knows nothing of sound.
"""

import re
from collections.abc import Iterable

# The names of letters are each language's own, so one is no translation of the other.
NO_TRANSLATION = re.compile(r"(letters/\w|phonetic/.*)$")

_NUMBERS = {
    "en": "zero one two three four five six seven eight nine",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "it": "zero uno due tre quattro cinque sei sette otto nove",
    "ru": "ноль один два три четыре пять шесть семь восемь девять",
}

# Wrong=right, whatever the capitals; _ stands for a space.
_SPELLING = {
    "en": "umute=unmute represenatives=representatives fourtieth=fortieth witheld=withheld "
    "rerecord=re-record thru=through linux=Linux",
    "es": "atras=atrás atravez=a_través autenticacion=autenticación ayudaran=ayudarán "
    "busqueda=búsqueda buzon=buzón codigo=código comenzara=comenzará comprendi=comprendí "
    "conexion=conexión configuracion=configuración contrasena=contraseña "
    "contrasenas=contraseñas contrasenia=contraseña decimo=décimo "
    "defeto=defecto demonstracion=demostración demostracion=demostración despues=después "
    "dieciseis=dieciséis digitos=dígitos dolar=dólar dolares=dólares duodecimo=duodécimo "
    "duracion=duración entidade=entidades escucharas=escucharás estan=están "
    "estandar=estándar esten=estén exclamacion=exclamación extension=extensión "
    "fisico=físico grabacion=grabación guiare=guiaré identificacion=identificación "
    "informacion=información ingese=ingrese ingresara=ingresará intentare=intentaré "
    "introduccion=introducción introdusca=introduzca invalida=inválida invalido=inválido "
    "japon=Japón lider=líder linea=línea logre=logré manana=mañana maria=María mas=más "
    "menu=menú mesaje=mensaje miercoles=miércoles millon=millón minimos=mínimos "
    "modem=módem navegara=navegará nimbre=nombre numbre=nombre numerico=numérico "
    "numero=número opcion=opción oscar=Óscar paracambiar=para_cambiar posicion=posición "
    "proposito=propósito proximo=próximo rapidamente=rápidamente "
    "reproduccion=reproducción sabado=sábado septimo=séptimo sera=será tambien=también "
    "tecleo=tecleó tecnica=técnica telefonico=telefónico telefono=teléfono tendra=tendrá "
    "trigesimo=trigésimo trés=tres ultimo=último undecimo=undécimo unica=única "
    "unira=unirá uniran=unirán util=útil vacias=vacías valido=válido veintidos=veintidós "
    "veintiseis=veintiséis veintitres=veintitrés victor=Víctor vigesimo=vigésimo ó=o",
    "fr": "abregée=abrégée acceuil=accueil appellant=appelant appellants=appelants "
    "arobas=arobase aurevoir=au_revoir autorise=autorisé boite=boîte conctact=contacte "
    "connection=connexion desole=désolé desolé=désolé desirez=désirez "
    "démontration=démonstration déverouillée=déverrouillée dévérouiller=déverrouiller "
    "dévérouillée=déverrouillée ecouter=écouter enleve=enlevé etait=était etes=êtes "
    "etre=être felicitation=félicitations numero=numéro occupes=occupés "
    "premieres=premières presentement=présentement problemes=problèmes "
    "présentemnet=présentement reessayer=réessayer répétér=répéter simultane=simultanée "
    "telephone=téléphone telephoner=téléphoner verouillée=verrouillée "
    "vérouiller=verrouiller vérouillée=verrouillée vérrouiller=verrouiller "
    "étez=été étés=été somme=sommes status=statut",
    "it": "perpiacere=per_piacere cassella=casella",
    "ru": "взёздочка=звёздочка демонтрационным=демонстрационным завршить=завершить "
    "октрября=октября первoe=первое увеличиения=увеличения зайдете=зайдёте "
    "неопределен=не_определён неразрешен=не_разрешён",
}

# Pattern → replacement in `key: text`, in this order, before the spelling.
_PHRASES = {
    "en": [
        (r" i\b", " I"),
        (r"Un-indentified", "Unidentified"),
    ],
    "es": [
        # "esta" is "this" before these words and "is" everywhere else.
        (r"\b([Ee])sta\b(?! (es|vez|conf|pers|prueba|demo|graba|extens))", r"\1stá"),
        (r"no se quien", "no sé quién"),
        (r"cortes de no llamar", "cortés de no llamar"),
        (r"mudo mudo", "modo mudo"),
        (r"\b([Ee]n|a) que carpeta", r"\1 qué carpeta"),
        (r"([:.] )([^.:?]+\?)", r"\1¿\2"),
        # What was written "marque 1 para …, 2 para …" was read "marque número uno para …".
        (r"([Mm]arque|\w,| o(?= 2 para)) (?=[1-9]\b)", r"\1 número "),
        (r"^((vm-(delete|next|onefor|toforward|undelete)|dir-instr):.*) número", r"\1 el número"),
    ],
    "fr": [
        (r"\b([Vv]euillez|[Pp]ouvez) (\w+)ez\b", r"\1 \2er"),
        (r"\bce tte\b", "cette"),
        (r"\ba ete\b", "a été"),
        (r"\bj'(établi|essai)\b", r"j'\1e"),
        (r"établie la", "établis la"),
        (r"l'arrivé\b", "l'arrivée"),
        (r"information de déboguage", "informations de débogage"),
        (r", appuyer sur", ", appuyez sur"),
        (r"mots? de passes", "mots de passe"),
        (r"seul les", "seuls les"),
        (r"options avancés", "options avancées"),
    ],
    "it": [
        # The accents were lost in some lines.
        (r"\bsar\?", "sarà"),
        (r"\bpu\?", "può"),
        (r"\bcos\?", "così"),
        (r"\bpi\?", "più"),
        (r" \? ", " è "),
        (r"\bE' ", "È "),
    ],
    "ru": [
        (r"\b([Чч])то бы\b", r"\1тобы"),
        (r"чтобы бы", "чтобы"),
        (r"\bза тем\b", "затем"),
        (r"по-этому", "поэтому"),
        (r"по прежнему", "по-прежнему"),
    ],
}

# What a recogniser heard where the listing is wrong, each by a wide margin of likelihood …
_HEARD = {
    "en": {
        "invalid": "I'm sorry, that is not a valid extension. Please try again.",
        "pbx-invalidpark": "I am sorry, but there is no call parked on that extension. "
        "Please try again.",
    },
    "es": {"vm-nomore": "No hay más mensajes."},
    "fr": {
        "if-correct-press": "Si c'est exact, appuyez sur...",
        "pbx-parkingfailed": "La tentative de placement d'appel a échoué.",
        "please-try-call-later": "Veuillez essayer votre appel plus tard.",
        "sorry-youre-having-problems": "Désolé que vous ayez des problèmes.",
        "vm-marked-urgent": "Ce message est qualifié d'urgent.",
        "vm-review-urgent": "Pour qualifier ce message d'urgent, faites le quatre.",
    },
    "it": {
        "conf-placeintoconf": "Ora sarà inserito nella conferenza.",
        "confbridge-mute-in": "Per disattivare o riattivare la propria voce...",
        "confbridge-mute-out": "...per disattivare o riattivare la propria voce.",
        "confbridge-only-one": "C'è attualmente solo un altro partecipante alla conferenza.",
        "confbridge-only-participant": "Sei attualmente l'unico partecipante della conferenza.",
        "dir-instr": "Se questa è la persona che stai cercando premere uno, altrimenti premere "
        "asterisco.",
        "is": "È",
        "please-try-call-later": "Per piacere, riprova ancora la tua chiamata più tardi.",
        "queue-thereare": "Attualmente lei è il chiamante numero...",
        "vm-nobodyavail": "Al momento nessuno degli operatori è in grado di rispondere alla "
        "chiamata.",
        "vm-tempgreetactive": "Il proprio messaggio temporaneo di saluto è attualmente attivo.",
        "vm-then-pound": "poi premere cancelletto",
    },
    "ru": {
        "vm-review-nonurgent": "Нажмите четыре, чтобы убрать пометку «статус важно» с этого "
        "сообщения."
    },
}
# … and the keys where it is wrong and what was said is not certain.
_UNCERTAIN = {
    "es": "followme/options|.*-callee-options"
    "|vm-(forward|instructions|options|record-prepend|review)",
    "fr": "demo-moreinfo|.*-callee-options",
}

_NO_SPEECH = {
    "silence": re.compile(r"silence/"),
    "tone or noise": re.compile(r"(beep(err)?|\w+-2tone|confbridge-(join|leave)|tt-monkeys)$"),
}


def read_listing(lines: Iterable[str], lang: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the corrected text of each key, and of the other keys why they are left out."""
    spelling = dict(pair.replace("_", " ").split("=") for pair in _SPELLING[lang].split())
    texts: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for line in lines:
        key, colon, text = line.strip().partition(":")
        if line.startswith(";") or not colon or key in texts:
            continue  # Spanish lists 0 twice, and the first is right
        text = _HEARD[lang].get(key, text)
        if reason := _why_not(key, text, lang):
            left_out[key] = reason
        else:
            texts[key] = _correct(key, text, lang, spelling)
    return texts, left_out


def _why_not(key: str, text: str, lang: str) -> str | None:
    """Return why a line has no text to learn from, or None if it has."""
    if re.fullmatch(_UNCERTAIN.get(lang, ""), key):
        return "recording says otherwise"
    for reason, keys in _NO_SPEECH.items():
        if keys.match(key):
            return reason
    if re.search(r"\[[^\W\d_]", text):
        return "words in brackets"  # spoken or not: the listing does not say
    text = _without_notes(text)
    if not re.search(r"[^\W\d_]", text):
        return "no text"
    if re.search(r"\d[\d.,]*\d|\d[^\W\d_]|[^\W\d_]\d|[*#/]", text):
        return "number or sign not spelt out"
    return None


def _without_notes(text: str) -> str:
    """Remove notes to the speaker, and a following entry that lost its line break."""
    text = re.sub(r"\([^)]*\)|\[[^]]*\]|<[^>]*>", " ", text)
    return re.sub(r"(?<=\S)\s*\b(vm|conf|confbridge)-[a-z-]+: .*", "", text)


def _correct(key: str, text: str, lang: str, spelling: dict[str, str]) -> str:
    """Return the text as a sentence: spelt, spaced, numbers in words, from capital to full stop."""
    numbers = _NUMBERS[lang].split()
    text = f"{key}: " + re.sub(r"[\"“”„«»]", "", _without_notes(text)).strip()
    for pattern, replacement in _PHRASES[lang]:
        text = re.sub(pattern, replacement, text)
    text = text.removeprefix(f"{key}: ")
    text = re.sub(r"[^\W\d_]+", lambda word: _respell(word[0], spelling), text)
    text = re.sub(r"\d", lambda digit: numbers[int(digit[0])], text)
    text = text.replace("…", "...").replace("’", "'")
    text = re.sub(r"\s+([.,;:?!])", r"\1", text)  # "mensaje ?"
    text = re.sub(r"(?<=[^\W\d_])([.,;:?!])(?=[A-ZÀ-ÝА-Я][a-zà-ýа-я])", r"\1 ", text)  # "cinq.Pour"
    text = " ".join(text.split()).strip(" .,:;")  # "...for..." is what is said between two others
    text = re.sub(r"^[^\W\d_]|(?<=[.?!] )[^\W\d_]", lambda first: first[0].upper(), text)
    return text if text[-1] in "?!" else text + "."


def _respell(word: str, spelling: dict[str, str]) -> str:
    right = spelling.get(word.lower(), word)
    return right[0].upper() + right[1:] if word[0].isupper() else right
