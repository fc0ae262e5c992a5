"""Expected self-test results of timm's families; `python -m tests.builders.families` prints them for the docs."""

from dataclasses import dataclass

LINEAR, NOT_LINEAR = "linear", "not linear"
CLASS_TOKEN = "not made from its cells alone"  # how a message of refusal starts
SEVERAL = "its features are several tensors"
POSITIONS = "its head treats cells differently by position"
NO_GRID = "tokens do not form a grid"
ONE_CELL = "give it a single cell"
NO_SUCH_HEAD = "its head does not run on single cells"


@dataclass(frozen=True, kw_only=True)
class Family:
    name: str
    model: str  # a small one
    head: str = LINEAR
    refused: str = ""  # pattern of the error message
    quick: bool = True  # part of `make test`; the others run with `make test-all`


def _families(head: str, models: dict[str, str]) -> list[Family]:
    return [Family(name=name, model=model, head=head, quick=model not in SLOW) for name, model in models.items()]


SLOW = {
    "resnetv2_18", "resnest14d", "res2next50", "skresnet18", "tresnet_m", "regnetz_005", "tf_efficientnetv2_b0",
    "dpn48b", "hrnet_w18_small", "selecsls42", "inception_v3", "legacy_xception", "halonet_h1",
    "convmixer_768_32", "nextvit_small", "mvitv2_tiny", "focalnet_tiny_srf", "nest_tiny",
    "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "twins_svt_small", "hiera_tiny_224", "sequencer2d_s",
    "mixer_s32_224", "resmlp_12_224", "hardcorenas_b", "hgnetv2_b0", "lcnetv2_small", "vgg11", "rdnet_tiny",
    "maxvit_tiny_tf_224", "davit_tiny", "vitamin_small_224", "vit_base_patch16_rope_reg1_gap_256",
    "beit_base_patch16_224", "vit_base_patch16_siglip_224",
}  # fmt: skip
FAMILIES = [
    *_families(LINEAR, {
        "ResNet": "test_resnet", "ResNet V2": "resnetv2_18", "ResNeSt": "resnest14d", "Res2Net": "res2next50",
        "SE-ResNet": "legacy_seresnet18", "SK-ResNet": "skresnet18", "TResNet": "tresnet_m", "RegNet": "regnetx_002",
        "RegNet Z": "regnetz_005", "NFNet": "test_nfnet", "EfficientNet": "test_efficientnet",
        "MobileNetV2": "mobilenetv2_050", "EfficientNetV2": "tf_efficientnetv2_b0", "ReXNet": "rexnet_100",
        "DenseNet": "densenet121", "DPN": "dpn48b", "DLA": "dla46x_c", "CSPNet": "cs3darknet_focus_s",
        "VoVNet": "ese_vovnet19b_slim_dw", "HRNet": "hrnet_w18_small", "SelecSLS": "selecsls42",
        "Inception v3": "inception_v3", "Xception": "legacy_xception", "RepVGG": "repvgg_a0",
        "ByobNet": "test_byobnet", "HaloNet": "halonet_h1", "ConvMixer": "convmixer_768_32", "FastViT": "fastvit_t8",
        "RepViT": "repvit_m1", "StarNet": "starnet_s050", "SwiftFormer": "swiftformer_xs",
        "NextViT": "nextvit_small", "PVT v2": "pvt_v2_b0", "EfficientFormer": "efficientformer_l1",
        "EfficientFormer V2": "efficientformerv2_s0", "EfficientViT MSRA": "efficientvit_m0", "LeViT": "levit_128s",
        "MobileViT": "mobilevit_xxs", "MViT v2": "mvitv2_tiny", "CoAtNet": "test_coatnet",
        "FocalNet": "focalnet_tiny_srf", "GC ViT": "gcvit_xxtiny", "NesT": "nest_tiny",
        "Swin": "swin_tiny_patch4_window7_224", "Swin V2": "swinv2_tiny_window8_256",
        "Swin V2 CR": "swinv2_cr_tiny_224", "Twins": "twins_svt_small", "Hiera": "hiera_tiny_224",
        "Sequencer": "sequencer2d_s", "Visformer": "visformer_tiny", "MLP-Mixer": "mixer_s32_224",
        "gMLP": "gmlp_ti16_224", "ResMLP": "resmlp_12_224", "DINOv3 with registers": "vit_tiny_patch16_dinov3_qkvb",
    }),
    *_families(NOT_LINEAR, {
        "MobileNetV3": "mobilenetv3_small_050", "MobileNetV4": "mobilenetv4_conv_small", "GhostNet": "ghostnet_050",
        "HardCoRe-NAS": "hardcorenas_b", "HGNet V2": "hgnetv2_b0", "LCNet V2": "lcnetv2_small", "VGG": "vgg11",
        "ConvNeXt": "test_convnext", "InceptionNeXt": "inception_next_atto", "EdgeNeXt": "edgenext_xx_small",
        "FasterNet": "fasternet_t0", "RDNet": "rdnet_tiny", "MambaOut": "test_mambaout",
        "MaxViT": "maxvit_tiny_tf_224", "PoolFormer": "poolformerv2_s12", "CAFormer": "caformer_s18",
        "DaViT": "davit_tiny", "TinyViT": "tiny_vit_5m_224", "EfficientViT MIT": "efficientvit_b0",
        "ViTamin": "vitamin_small_224", "ViT with average pooling": "test_vit2",
        "ViT with relative positions": "test_vit_relpos",
        "ViT with rotary positions and a register": "vit_base_patch16_rope_reg1_gap_256",
        "EVA02": "eva02_tiny_patch14_336", "BEiT": "beit_base_patch16_224",
        "SigLIP with attention pooling": "vit_base_patch16_siglip_224",
    }),
    Family(name="ViT with a class token", model="test_vit", refused=CLASS_TOKEN),
    Family(name="ViT with attention pooling over a class token", model="test_vit3", refused=CLASS_TOKEN, quick=False),
    Family(name="DeiT", model="deit_tiny_patch16_224", refused=CLASS_TOKEN),
    Family(name="DeiT, distilled", model="deit_tiny_distilled_patch16_224", refused=CLASS_TOKEN, quick=False),
    Family(name="DINOv2", model="vit_small_patch14_reg4_dinov2", refused=CLASS_TOKEN, quick=False),
    Family(name="CaiT", model="cait_xxs24_224", refused=CLASS_TOKEN, quick=False),
    Family(name="XCiT", model="xcit_nano_12_p8_224", refused=CLASS_TOKEN, quick=False),
    Family(name="TNT", model="tnt_s_legacy_patch16_224", refused=CLASS_TOKEN, quick=False),
    Family(name="VOLO", model="volo_d1_224", refused=NO_GRID, quick=False),
    Family(name="PiT", model="pit_ti_224", refused=ONE_CELL),
    Family(name="PiT, distilled", model="pit_ti_distilled_224", refused=NO_SUCH_HEAD, quick=False),
    Family(name="CoaT", model="coat_tiny", refused=SEVERAL, quick=False),
    Family(name="CrossViT", model="crossvit_tiny_240", refused=SEVERAL),
    Family(name="CLIP ResNet with attention pooling", model="resnet50_clip", refused=POSITIONS, quick=False),
]  # fmt: skip

REASONS = {
    CLASS_TOKEN: "predicts from a class token, not from its cells",
    NO_GRID: "predicts from a class token, not from its cells",
    ONE_CELL: "its features are the class token alone",
    NO_SUCH_HEAD: "its features are the class tokens alone",
    SEVERAL: "its features have several scales, each with a class token",
    POSITIONS: "its head gives every position a weight of its own",
}


def table() -> str:
    """The docs' table, one row a family."""
    rows = ["| family | tested with | cells |", "|---|---|---|"]
    for family in sorted(FAMILIES, key=lambda family: (bool(family.refused), family.name.lower())):
        cells = f"refused: {REASONS[family.refused]}" if family.refused else f"head {family.head}"
        rows.append(f"| {family.name} | `{family.model}` | {cells} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
