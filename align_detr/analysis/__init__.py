"""What results say beyond AP: tables of objects and detections, their overlaps and matching, and metrics of them.

numpy and SciPy only: results of any framework are read without torch or detectron2. Letters: I images, K classes,
G objects, D detections, P overlapping pairs.
"""
