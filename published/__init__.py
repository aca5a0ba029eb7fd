"""Data sets as their authors publish them, laid out as the folders that every script reads."""

# The table of labels of Kaggle's layouts, with its columns: an image's name without ending, and
# its class.
KAGGLE_TABLES = {
    "cifar10": ("trainLabels.csv", "id", "label"),
    "dogs": ("labels.csv", "id", "breed"),
}
STREET_FORMATS = ("coco", "voc", "yolo")  # keys of world.formats.FORMATS
