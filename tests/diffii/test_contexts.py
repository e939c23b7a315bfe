"""Captions -> contexts -> suffixes by rule: what captioners write of birds, cars, aircraft, pets and flowers."""

from __future__ import annotations

import random

import pytest

from diffii.contexts.subject import SubjectWords, context_of
from diffii.contexts.suffixes import condense, group_of

BIRDS = SubjectWords.of(["Black footed Albatross", "House Sparrow", "Red winged Blackbird", "Western Gull"], "bird")
CARS = SubjectWords.of(["Audi A4 Sedan 2012", "BMW M3 Coupe 2012", "Volvo XC90 SUV 2007"], "car")
AIRCRAFT = SubjectWords.of(["737-200", "DC-8", "Cessna 172"], "aircraft")
PETS = SubjectWords.of(["Persian", "Yorkshire Terrier", "keeshond", "Pug", "Beagle"], "pet")
FLOWERS = SubjectWords.of(["Water Lily", "English Marigold", "Tree Poppy", "Lotus"], "flower")
NOTHING_KNOWN = SubjectWords.of([])

CAPTIONS = [
    (BIRDS, "a small bird sitting on a branch", "sitting on a branch"),
    (BIRDS, "a bird with a red head is perched on a tree branch", "perched on a tree branch"),
    (BIRDS, "there is a bird that is flying over the water", "flying over the water"),
    (BIRDS, "a black and white photo of a bird on a wire", "on a wire"),
    (BIRDS, "two birds sitting on a wire", "sitting on a wire"),
    (BIRDS, "a bird with black stripes on the wings", ""),
    (BIRDS, "a close up of the head of a bird with grass in the background", "with grass in the background"),
    (BIRDS, "a large white albatross flying over the ocean", "flying over the ocean"),
    (BIRDS, "a sparrow", ""),
    (BIRDS, "a bird with a fish in its beak", ""),
    (BIRDS, "a flying bird over a beach", "over a beach"),
    (BIRDS, "a nest in a tree with a bird on it", ""),
    (BIRDS, "a bird sits on a feeder outside of a window", "sitting on a feeder outside of a window"),
    (BIRDS, "a man is holding a bird in his hand", ""),
    (BIRDS, "a bird sitting on a branch on a branch", "sitting on a branch"),
    (BIRDS, "a yellow bird with a black beak and a long tail in the grass", "in the grass"),
    (BIRDS, "arafed bird sitting on a branch with leaves", "sitting on a branch with leaves"),
    (BIRDS, "A Bird standing in the water. It is looking for food.", "standing in the water"),
    (BIRDS, "a blackbird sitting next to a sparrow", ""),
    (CARS, "a photo of a red car parked in front of a house", "parked in front of a house"),
    (CARS, "the front end of a silver car parked in a showroom", "parked in a showroom"),
    (CARS, "a red sports car with a black top is parked on the street", "parked on the street"),
    (
        CARS,
        "a car is driving down a road with trees in the background",
        "driving down a road with trees in the background",
    ),
    (CARS, "a white truck parked next to a building", "parked next to a building"),
    (CARS, "a car next to a fence", "next to a fence"),
    (CARS, "a blue car on display at a car show", "on display at a car show"),
    (CARS, "a car with its doors open in a garage", "in a garage"),
    (CARS, "the rear view of a yellow sports car", ""),
    (CARS, "an image of a silver sedan driving on a highway at sunset", "driving on a highway at sunset"),
    (AIRCRAFT, "a large jetliner flying through a blue sky", "flying through a blue sky"),
    (AIRCRAFT, "an airplane is parked on the runway at the airport", "parked on the runway at the airport"),
    (AIRCRAFT, "a passenger jet taking off from an airport runway", "taking off from an airport runway"),
    (AIRCRAFT, "a large white airplane with a red tail on the tarmac", "on the tarmac"),
    (AIRCRAFT, "a plane", ""),
    (PETS, "there is a cat that is lying on a sofa", "lying on a sofa"),
    (PETS, "a brown dog wearing a red collar sitting on grass", "sitting on grass"),
    (PETS, "a small dog with a blue ribbon around its neck sitting on a chair", "sitting on a chair"),
    (PETS, "a corgi sitting on a dog bed", "sitting on a dog bed"),
    (PETS, "a white cat with blue eyes looking at the camera", "looking at the camera"),
    (PETS, "a cat and a dog sleeping on a couch", "sleeping on a couch"),
    (PETS, "a dog in the snow with its tongue out", "in the snow"),
    (PETS, "a dog outdoors", "outdoors"),
    (PETS, "a kitten asleep in a basket", "asleep in a basket"),
    (FLOWERS, "a yellow flower with green leaves in the background", "with green leaves in the background"),
    (FLOWERS, "a white flower in the middle of a field", "in the middle of a field"),
    (FLOWERS, "a bee on a flower in a garden", "in a garden"),
    (FLOWERS, "a group of orange flowers in a vase on a table", "in a vase on a table"),
    (FLOWERS, "a flower with yellow petals", ""),
    (BIRDS, "a blue bird sitting on top of a bird feeder", "sitting on top of a bird feeder"),
    (BIRDS, "a black bird with yellow eyes walking on the ground", "walking on the ground"),
    (BIRDS, "a seagull standing on a railing by the ocean", "standing on a railing by the ocean"),
    (BIRDS, "a bird perched on the end of a twig", "perched on the end of a twig"),
    (BIRDS, "a small brown bird is standing in the snow", "standing in the snow"),
    (BIRDS, "a bird that is eating seeds from a bowl", "eating seeds from a bowl"),
    (BIRDS, "a pair of birds flying in the sky", "flying in the sky"),
    (BIRDS, "a bird on a limb", "on a limb"),
    (BIRDS, "a hummingbird hovering near a red flower", "hovering near a red flower"),
    (BIRDS, "a duck floating on top of a lake surrounded by reeds", "floating on top of a lake surrounded by reeds"),
    (BIRDS, "this is a photo of a gull on the beach", "on the beach"),
    (BIRDS, "a bird with its beak open", ""),
    (CARS, "a black pickup truck is sitting in a lot", "sitting in a lot"),
    (CARS, "a red car driving on a wet road", "driving on a wet road"),
    (CARS, "a silver suv is shown in front of a mountain", "in front of a mountain"),
    (CARS, "the back of a white car parked in a driveway", "parked in a driveway"),
    (CARS, "an old car is parked under a tree", "parked under a tree"),
    (CARS, "a car with a roof rack on top of it", ""),
    (CARS, "a yellow jeep driving through the mud", "driving through the mud"),
    (CARS, "a white car on a white background", "on a white background"),
    (CARS, "two cars parked side by side in a lot", "parked side by side in a lot"),
    (CARS, "a blue sedan in motion on a race track", "in motion on a race track"),
    (AIRCRAFT, "a plane flying in the air with its landing gear down", "flying in the air"),
    (AIRCRAFT, "a military jet sitting on top of an airport runway", "sitting on top of an airport runway"),
    (AIRCRAFT, "an american airlines plane is on the runway", "on the runway"),
    (AIRCRAFT, "a blue and white plane parked at the gate", "parked at the gate"),
    (AIRCRAFT, "a propeller plane flying over a mountain range", "flying over a mountain range"),
    (AIRCRAFT, "a group of jets flying in formation in a cloudy sky", "flying in formation in a cloudy sky"),
    (AIRCRAFT, "a helicopter on display inside of a museum", "on display inside of a museum"),
    (AIRCRAFT, "a passenger plane coming in for a landing", "coming in for a landing"),
    (PETS, "a pug puppy sitting in front of a blue wall", "sitting in front of a blue wall"),
    (PETS, "a cat sitting on a window sill looking out", "sitting on a window sill looking out"),
    (PETS, "a dog standing on a sidewalk with a leash", "standing on a sidewalk with a leash"),
    (PETS, "a close up of a cat with green eyes", ""),
    (PETS, "a cat laying on its back on a rug", "laying on its back on a rug"),
    (PETS, "a woman holding a small dog in her arms", ""),
    (PETS, "a beagle running across a grassy field", "running across a grassy field"),
    (PETS, "a dog sits in the back seat of a car", "sitting in the back seat of a car"),
    (PETS, "a cat is curled up on a blanket", "curled up on a blanket"),
    (FLOWERS, "a red poppy in a green field", "in a green field"),
    (FLOWERS, "a purple and white flower with a yellow center", ""),
    (FLOWERS, "a bunch of pink flowers growing on a bush", "growing on a bush"),
    (FLOWERS, "a white lotus flower in a pond with lily pads", "in a pond"),
    (FLOWERS, "a bee sitting on top of a purple flower", ""),
    (FLOWERS, "flowers in a glass vase near a window", "in a glass vase near a window"),
    (FLOWERS, "a single orange flower against a black background", "against a black background"),
    (BIRDS, "an albatross in a tree with another albatross", "in a tree"),
    (NOTHING_KNOWN, "a sneaker on grass", "on grass"),
    (NOTHING_KNOWN, "an old wooden thing in the snow", "in the snow"),
    (NOTHING_KNOWN, "", ""),
]


@pytest.mark.parametrize(("subjects", "caption", "context"), CAPTIONS, ids=[caption for _, caption, _ in CAPTIONS])
def test_a_context_is_the_caption_without_its_subject(subjects: SubjectWords, caption: str, context: str) -> None:
    assert context_of(caption, subjects) == context


def test_a_class_is_found_by_its_last_word_in_any_number() -> None:
    words = SubjectWords.of(["Bugatti Veyron 16.4", "Ruby-throated Hummingbird", "Canary", "Bus"], "")
    for noun in ("veyron", "veyrons", "hummingbirds", "canaries", "buses"):
        assert context_of(f"three {noun} on a table", words) == "on a table"
    assert "16" not in words.nouns and not words.theme


@pytest.mark.parametrize(
    "caption", ["...", "with", "on", "a photo of", "in in in in", "\u2019\u2019 \n\n", "there is", "of of"]
)
def test_a_garbled_caption_has_no_context_and_no_error(caption: str) -> None:
    assert context_of(caption, BIRDS) == ""


# -- condensing -------------------------------------------------------------------------------------------------------

SEEN = [
    *["sitting on a branch"] * 9, *["perched on a branch"] * 5, *["sitting on a tree branch"] * 6,
    *["flying over the water"] * 4, "flying over water", *["swimming in the water"] * 3,
    *["standing in the grass"] * 3, *["in the grass"] * 2, *["on a wire"] * 2, "sitting on a wire fence",
    *["in front of a house"] * 2, "on the side of the road", "parked next to a road", "", "",
]  # fmt: skip


def test_contexts_of_one_place_are_one_suffix_and_the_frequent_come_first() -> None:
    found = condense(SEEN)
    assert found[0] == "sitting on a branch"
    assert found.count("perched on a branch") == found.count("sitting on a tree branch") == 0
    assert {"flying over the water", "swimming in the water", "standing in the grass", "on a wire"} <= set(found)
    assert sum("road" in suffix for suffix in found) == 1 and "" not in found


def test_the_order_of_the_captions_changes_nothing() -> None:
    shuffled = list(SEEN)
    for seed in range(20):
        random.Random(seed).shuffle(shuffled)
        assert condense(shuffled) == condense(SEEN)


def test_the_first_few_stay_first_when_more_are_asked_for() -> None:
    assert [condense(SEEN, limit) for limit in range(1, 6)] == [condense(SEEN)[:limit] for limit in range(1, 6)]


def test_all_captions_give_at_most_ten_different_suffixes() -> None:
    contexts = [context_of(caption, subjects) for subjects, caption, _ in CAPTIONS]
    found = condense(contexts)
    assert len(found) == len(set(map(group_of, found))) == 10
    assert set(found) <= set(contexts)


def test_a_suffix_like_one_that_is_taken_gives_way_to_another() -> None:
    seen = [*["on a rock by the sea"] * 5, *["on a red rock wall by the sea"] * 4, *["in a cage"] * 3]
    assert condense(seen, 2) == ["on a rock by the sea", "in a cage"]


def test_spelling_is_evened_out() -> None:
    assert condense(["On  Grass.", "on grass", "on grass!"]) == ["on grass"]


def test_without_contexts_there_is_no_suffix() -> None:
    assert condense([]) == condense(["", " ", "."]) == []
    with pytest.raises(ValueError, match="at least one suffix"):
        condense(["on grass"], 0)
