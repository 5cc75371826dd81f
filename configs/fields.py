"""What each field of the configurations means, and in which unit it is.

The site's reference is made from this table and from `imagenet.py`, which has
every field; a test holds the two together.
"""

# Field: (unit, meaning). Markdown; a unit of "" is a word, a switch or a name.
# In the order of `imagenet.py`'s sections.
FIELDS: dict[str, tuple[str, str]] = {
  "seed": ("", "of the first weights, the batch plan, augmentation, dropout"),
  "log_every_steps": ("steps", "between log lines"),
  "tracker": (
    "",
    "what gets the numbers beside the run's own files: `none` or `wandb` "
    "([more](../running.md#weights-biases))",
  ),
  "report": ("", "write an HTML page to `WORKDIR/report` at the end"),
  "model.name": (
    "",
    "`mobilevit_xxs`, `mobilevitv2_100` and so on, of `mobilevit_jax.models`; "
    "set by the file's argument (`imagenet.py:xs`, `imagenet.py:v2_100`)",
  ),
  "model.head": (
    "",
    "what reads the backbone's features: `classifier`, `deeplabv3` "
    "or `ssdlite`",
  ),
  "model.num_classes": (
    "classes",
    "outputs; at least those of the data, or none: the data's",
  ),
  "model.dropout": (
    "probability",
    "inside the transformer blocks; the paper's is 0.05 for XXS, and 0 for v2",
  ),
  "model.classifier_dropout": ("probability", "before the classifier"),
  "model.bn_groups": (
    "groups",
    "parts of a batch that BatchNorm normalises each by itself; 1 for the "
    "whole batch ([more](../how/batch_norm.md))",
  ),
  "model.output_stride": (
    "pixels",
    "32, or 16 or 8 for dense prediction: of the last map",
  ),
  "model.depthwise": (
    "",
    "how depthwise and 1 x 1 convolutions are computed: `auto` by platform, "
    "`conv` or `shift`",
  ),
  "model.dtype": (
    "",
    "type of computation: `float32`, `bfloat16`, `float16` or `float64`; "
    "parameters stay float32",
  ),
  "weights.source": (
    "",
    "weights to start from or to evaluate: a file, a folder, "
    "`hf://owner/name` or a run's workdir; none: drawn from the seed",
  ),
  "weights.which": (
    "",
    "of a run's workdir: `ema` or `raw` weights of its last step, or the EMA "
    "weights that evaluated `best`; `auto` is the best of a run that stops "
    "early, else `ema`",
  ),
  "weights.reset": (
    "",
    "what keeps its first weights: `none`; the `classifier`, whose shape "
    "follows the classes; or the whole `head`, so that the backbone alone is "
    "loaded",
  ),
  "task.name": ("", "what is trained for: `classify`, `detect` or `segment`"),
  "task.label_smoothing": ("probability", "spread over all classes"),
  "task.mixup": ("alpha", "of Mixup's Beta distribution; 0 for none"),
  "task.cutmix": (
    "alpha",
    "of CutMix's; 0 for none. With both on, either is drawn, evenly",
  ),
  "task.mix_each": (
    "",
    "what has draws of its own of the two: each `image`, or each `batch`",
  ),
  "task.class_weights": (
    "",
    "`balanced`: every class counts as much as any other, whatever its images; "
    "or `none`",
  ),
  "transform.crop_scale": (
    "part of the area",
    "least and most that a random crop takes of an image",
  ),
  "transform.crop_ratio": ("width / height", "least and most of a random crop"),
  "transform.flip": ("probability", "of a horizontal flip"),
  "transform.randaugment_ops": ("operations", "of RandAugment; 0 for none"),
  "transform.randaugment_magnitude": ("0 to 10", "strength of RandAugment"),
  "transform.color_jitter": (
    "0 to 1",
    "brightness, contrast and saturation are multiplied by factors that lie "
    "within this of 1",
  ),
  "transform.erase": ("probability", "of a random box of noise"),
  "transform.preset": (
    "",
    "resize before the crop: `cvnets`, `hf` or `timm` "
    "([more](../weights.md#classifying-images))",
  ),
  "transform.resize_size": (
    "pixels",
    "shorter side before the crop; none: the preset's share of `size`",
  ),
  "transform.max_pixels": (
    "pixels",
    "the most that an image may have: a larger one is refused by name, before "
    "it is decoded",
  ),
  "data.name": (
    "",
    "`folder`, `digits`, or the name of a TFDS set; with boxes `coco_json`, "
    "`voc_folder` or `yolo_folder`; with masks `masks`, `voc_masks`, `ade20k`, "
    "`coco_voc21` or `pet_masks`",
  ),
  "data.dir": (
    "",
    "the folder; for TFDS, where sets are kept (none: TFDS's own default)",
  ),
  "data.train_split": (
    "",
    "images to train on; TFDS slices them: `train[:90%]`",
  ),
  "data.eval_split": ("", "images to evaluate on"),
  "data.few_shot": (
    "images",
    "of each class to train on, drawn by the seed; none: all",
  ),
  "data.check": ("", "read every image before training, and refuse bad sets"),
  "data.on_bad_image": (
    "",
    "`error` ends the run at a broken image, `replace` takes another",
  ),
  "data.num_workers": (
    "processes",
    "that load batches, on each host; 0 for threads of the trainer's own",
  ),
  "data.prefetch_batches": ("batches", "that each worker keeps ready"),
  "plan.sizes": (
    "pixels",
    "sides of the training images; one is drawn for each step",
  ),
  "plan.base_size": ("pixels", "the side at which a batch is `base_batch`"),
  "plan.base_batch": ("images", "of a group at `base_size`"),
  "plan.groups": ("groups", "in a batch: the paper's GPUs"),
  "plan.rule": (
    "",
    "how batches follow sizes: `cvnets_v01` or `cvnets_v04` "
    "([more](../how/multi_scale.md))",
  ),
  "plan.batch_multiple": (
    "images",
    "batches are rounded up to a multiple of this, for more devices",
  ),
  "plan.num_epochs": ("epochs", "length of the run"),
  "plan.num_steps": ("steps", "length of the run, in place of epochs"),
  "optim.name": ("", "optimiser: `adamw` or `sgd`"),
  "optim.init_lr": ("rate", "learning rate at step 0"),
  "optim.peak_lr": ("rate", "learning rate at the end of the warm-up"),
  "optim.final_lr": ("rate", "learning rate at the end of the run"),
  "optim.lr_batch": (
    "images",
    "that the three rates are for: they follow the square root of the batch; "
    "none: they hold for any",
  ),
  "optim.warmup_steps": ("steps", "of a linear rise; 0 for none"),
  "optim.warmup_epochs": ("epochs", "of the rise, in place of steps"),
  "optim.cosine_unit": (
    "",
    "whether the cosine moves once an `epoch`, as the paper's, or at every "
    "`step`",
  ),
  "optim.weight_decay": (
    "rate",
    "times the learning rate; SGD adds it to the gradient",
  ),
  "optim.decay": (
    "",
    "`all` parameters decay, as in the paper, or `no_norm_bias`: none of "
    "rank 1",
  ),
  "optim.b1": ("rate", "decay of AdamW's first moment"),
  "optim.b2": ("rate", "decay of AdamW's second moment"),
  "optim.eps": ("", "AdamW's, added after the bias correction"),
  "optim.momentum": ("share", "SGD's: of the last step's sum that stays"),
  "optim.clip_norm": ("norm", "most of the gradient's global norm; none: free"),
  "optim.accum_steps": (
    "parts",
    "that a batch is computed in, one after another, to save memory",
  ),
  "optim.layer_decay": (
    "factor",
    "of the rate, at each part of the net from the classifier to the stem; 1 "
    "for one rate",
  ),
  "optim.head_rate": (
    "factor",
    "of the rate, for the parts of the head; 10 in the paper's segmentation",
  ),
  "optim.freeze": (
    "",
    "`backbone` trains the classifier alone, with the backbone's BatchNorm "
    "statistics frozen too; or `none`",
  ),
  "optim.ema.momentum": (
    "share",
    "of the new weights in the average after each step",
  ),
  "optim.ema.warmup": (
    "",
    "start the share at 1 and let it fall: short runs need that",
  ),
  "eval.size": ("pixels", "side of the evaluated crop"),
  "eval.batch": ("images", "evaluated at a time, over all devices"),
  "eval.every_epochs": ("epochs", "between evaluations; the last step has one"),
  "early_stop.patience": (
    "evaluations",
    "without a better EMA top-1, after which the run ends; none: never",
  ),
  "checkpoint.every_steps": ("steps", "between checkpoints"),
  "checkpoint.keep": ("checkpoints", "the last ones that stay"),
  "profile.start_step": ("step", "where a trace begins; none: no trace"),
  "profile.num_steps": ("steps", "that the trace takes"),
}

# What configs/detect.py has in place of the fields of classification's task
# and transform.
DETECT: dict[str, tuple[str, str]] = {
  "task.name": ("", "`detect`"),
  "task.label_smoothing": ("probability", "spread over all classes"),
  "task.loss_groups": (
    "groups",
    "parts of a batch that the loss is divided in, each by its own positive "
    "anchors; 1 for the whole batch",
  ),
  "task.threshold": ("probability", "that a detection's score must be above"),
  "task.per_class": ("boxes", "of each class that compete in suppression"),
  "task.nms_iou": (
    "part of the union",
    "overlap from which the less sure of two boxes goes",
  ),
  "task.most": ("boxes", "that are kept of an image"),
  "transform.crop": ("", "whether to take SSD's random crop"),
  "transform.min_crop": ("pixels", "least side of that crop"),
  "transform.photometric": (
    "",
    "distortion of colours: `v01`, `main` (ml-cvnets' two forms) or `none`",
  ),
  "transform.flip": ("probability", "of a horizontal flip"),
  "transform.most_boxes": (
    "boxes",
    "of an image that are learnt from; of more the smallest are left out",
  ),
  "transform.bad_boxes": (
    "",
    "`clip` cuts boxes at the image's edges and leaves out what is then no "
    "box; `error` refuses them",
  ),
  "transform.max_pixels": (
    "pixels",
    "the most that an image may have: a larger one is refused by name, before "
    "it is decoded",
  ),
}
# What configs/segment.py has in place of those, and more of the net.
SEGMENT: dict[str, tuple[str, str]] = {
  "task.name": ("", "`segment`"),
  "task.label_smoothing": ("probability", "spread over all classes"),
  "task.class_weights": (
    "",
    "`frequency`: a pixel counts the less, the more its class has of the "
    "batch; or `none`",
  ),
  "transform.flip": ("probability", "of a horizontal flip"),
  "model.aspp_width": (
    "channels",
    "of the pyramid: 256, the paper's, or 512, ml-cvnets' since v0.2",
  ),
  "model.aspp_dropout": ("probability", "after the pyramid"),
  "model.aspp_dropout_kind": (
    "",
    "whether that drops each `element` or a whole `channel`",
  ),
  "model.auxiliary": ("", "also classify stage 4's pixels in training"),
  "model.aligned": (
    "",
    "whether logits are enlarged so that the corners' centres meet",
  ),
  "task.protocol": (
    "",
    "how images are evaluated: `stretch`, `aspect` or `slide` "
    "([more](../how/segmentation.md))",
  ),
  "task.auxiliary": ("factor", "of the auxiliary head's loss"),
  "task.dice": ("factor", "of the Dice loss beside cross-entropy; 0: none"),
  "task.focal": ("gamma", "of the focal loss; 0: cross-entropy"),
  "task.window": ("pixels", "side of the window of `slide`"),
  "task.overlap": ("part", "of a window that the next one sees again"),
  "transform.short_side": (
    "of the crop",
    "least and most of the short side after the random resize",
  ),
  "transform.long_side": (
    "of the crop",
    "most of the long side after the resize; none: any",
  ),
  "transform.pad": (
    "",
    "pad what is smaller than the crop; else it is enlarged",
  ),
  "transform.most_of_one": (
    "share",
    "most that one class may have of a crop, for ten tries; 1: any",
  ),
  "transform.blur": ("probability", "of a blur of up to 1 pixel"),
  "transform.photometric": (
    "",
    "draw brightness, contrast, saturation, hue, order of channels",
  ),
  "transform.rotation": ("degrees", "most of a rotation; 0 for none"),
  "transform.protocol": ("", "`task.protocol`: it follows that"),
  "transform.multiple": (
    "pixels",
    "what evaluated sides are multiples of: it is the output stride",
  ),
  "transform.max_pixels": (
    "pixels",
    "the most that an image may have: a larger one is refused by name, before "
    "it is decoded",
  ),
}
