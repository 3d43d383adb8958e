from __future__ import annotations

import pytest

from captioning.word_list import lemma_of, singular

PLURALS = """
mustaches:mustache headaches:headache bellyaches:bellyache avalanches:avalanche caches:cache quiches:quiche
ganaches:ganache beaches:beach watches:watch ostriches:ostrich stomachs:stomach epochs:epoch
hoodies:hoodie pixies:pixie movies:movie cookies:cookie neckties:necktie patisseries:patisserie reveries:reverie
ponies:pony bakeries:bakery skies:sky dies:die ties:tie jerseys:jersey sixties:sixty
bonuses:bonus minuses:minus walruses:walrus houses:house greenhouses:greenhouse blouses:blouse fuses:fuse
gases:gas lenses:lens canvases:canvas atlases:atlas vases:vase suitcases:suitcase seahorses:seahorse tenses:tense
analyses:analysis theses:thesis parentheses:parenthesis synopses:synopsis crises:crisis bases:base corpses:corpse
dresses:dress crevasses:crevasse irises:iris trellises:trellis premises:premise
axes:axe pickaxes:pickaxe foxes:fox taxes:tax lynxes:lynx quizzes:quiz buzzes:buzz waltzes:waltz breezes:breeze
shoes:shoe horseshoes:horseshoe toes:toe canoes:canoe oboes:oboe tomatoes:tomato dominoes:domino volcanoes:volcano
leaves:leaf knives:knife werewolves:werewolf bookshelves:bookshelf scarves:scarf handkerchieves:handkerchief
gloves:glove waves:wave caves:cave olives:olive doves:dove roofs:roof chefs:chef
geese:goose mongooses:mongoose dormice:dormouse mermen:merman policewomen:policewoman schoolchildren:schoolchild
cacti:cactus fungi:fungus larvae:larva antennae:antenna chateaux:chateau phenomena:phenomenon
menus:menu tutus:tutu taxis:taxi rabbis:rabbi daiquiris:daiquiri photos:photo zoos:zoo
mothers-in-law:mother-in-law passers-by:passer-by birds-of-paradise:bird-of-paradise yo-yos:yo-yo
jack-in-the-boxes:jack-in-the-box walkie-talkies:walkie-talkie great-grandchildren:great-grandchild
"""


def test_the_singular_is_the_one_that_the_word_list_has() -> None:
    pairs = [pair.split(":") for pair in PLURALS.split()]
    assert {plural: singular(plural) for plural, _ in pairs} == dict(pairs)


@pytest.mark.parametrize(
    "words",
    [
        "series species news glasses jeans scissors tweezers sweatpants pajamas clothes people sheep aircraft graffiti",
        "lens bus gas atlas iris basis tennis cactus virus chaos glass grass dress canvas christmas 1990s",
        "spaghetti samurai specimen omen regimen alibi data media sundae",
    ],
)
def test_what_is_no_plural_stays_as_it_is(words: str) -> None:
    assert [word for word in words.split() if lemma_of(word, "NN") != word or singular(word) != word] == []


def test_only_nouns_have_a_base_form() -> None:
    assert (lemma_of("Leaves", "VBZ"), lemma_of("Leaves", "NNS"), lemma_of("cacti", "NN")) == (
        "leaves",
        "leaf",
        "cactus",
    )
