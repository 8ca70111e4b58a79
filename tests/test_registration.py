"""Registration with transformers and PEFT, each in a new process: it must not depend on what was imported first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hf_mobility

ROOT = Path(__file__).resolve().parents[1]

CONFIG = "from hf_mobility import SamoeConfig\nconfig = SamoeConfig.from_preset('tiny')\n"
ALL = CONFIG + (
    "from transformers import AutoConfig, AutoModel, AutoModelForCausalLM\n"
    "assert type(AutoConfig.for_model('mobility_samoe')) is SamoeConfig\n"
    "assert type(AutoModel.from_config(config)).__name__ == 'SamoeModel'\n"
    "assert type(AutoModelForCausalLM.from_config(config)).__name__ == 'SamoeForNextLocation'\n"
)
TOKENIZER = (
    "from transformers import AutoTokenizer\n"
    "from transformers.models.auto.tokenization_auto import tokenizer_class_from_name\n"
    "from hf_mobility import SamoeTokenizer\n"
    "assert tokenizer_class_from_name('SamoeTokenizer').from_pretrained == SamoeTokenizer.from_pretrained\n"
)
PEFT = (
    "from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as table\n"
    "assert table['mobility_samoe'] == ['q_proj', 'k_proj', 'v_proj', 'o_proj'], table.get('mobility_samoe')\n"
)
CASES = {
    "hf_mobility first": "import hf_mobility\n" + ALL,
    "the Auto classes first": "from transformers import AutoModel, AutoModelForCausalLM\nimport hf_mobility\n" + ALL,
    "another model first": "import hf_mobility\nfrom transformers import GPT2Model\n" + ALL,
    "another model before hf_mobility": "from transformers import GPT2Model\nimport hf_mobility\n" + ALL,
    "our model file first": "from hf_mobility.modeling.modeling_samoe import SamoeForNextLocation\n" + ALL,
    "AutoConfig only": "import sys\nimport hf_mobility\nfrom transformers import AutoConfig\n"
    "assert AutoConfig.for_model('mobility_samoe', hidden_size=8).hidden_size == 8\n"
    "assert 'hf_mobility.modeling.modeling_samoe' not in sys.modules\n",
    "configurations only": "import sys\nfrom hf_mobility import MstarConfig, RawConfig, SamoeConfig\n"
    "assert RawConfig().hidden_size and 'transformers.modeling_utils' not in sys.modules\n",
    "AutoTokenizer only": "import hf_mobility\n" + TOKENIZER,
    "PEFT after hf_mobility": "import hf_mobility\n" + PEFT,
    "PEFT before hf_mobility": "import peft\nimport hf_mobility\n" + PEFT + ALL,
    "one Auto class": "import sys\nimport hf_mobility\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
    "ours = [name for name in sys.modules if name.startswith('hf_mobility.')]\n"
    "parts = [name.rpartition('.')[2] for name in ours]\n"
    "assert not [part for part in parts if part.startswith(('modeling_', 'tokenization_'))], parts\n",
    "one finder and no patch": "import sys\nbefore = list(sys.meta_path)\nimport hf_mobility\n"
    "assert len(sys.meta_path) == len(before) + 1\n"
    "from transformers import PreTrainedConfig, PreTrainedModel\n"
    "methods = [PreTrainedConfig.save_pretrained, PreTrainedModel.save_pretrained]\n"
    "from hf_mobility.modeling import SamoeConfig, SamoeModel\n"
    "assert methods == [PreTrainedConfig.save_pretrained, PreTrainedModel.save_pretrained]\n"
    "assert SamoeConfig.save_pretrained is PreTrainedConfig.save_pretrained\n",
    "a name that transformers has": "from hf_mobility.hub import auto\n"
    "auto.SYSTEMS['gpt2'] = auto.SYSTEMS['mobility_raw']\n"
    "from transformers import AutoConfig\n"
    "assert AutoConfig.for_model('gpt2').model_type == 'gpt2'\n",
    "a class of the folders": "from hf_mobility.modeling import RawModel, SamoeConfig\n"
    "from hf_mobility.tokenization import RawTokenizer\n"
    "import hf_mobility\n"
    "assert RawModel is hf_mobility.RawModel and RawTokenizer is hf_mobility.RawTokenizer\n"
    "assert 'hf_mobility.modeling.modeling_samoe' not in __import__('sys').modules\n"
    "assert {'RawModel', 'SamoeConfig'} <= set(dir(hf_mobility.modeling))\n",
    "nothing but the package": "import sys\nimport hf_mobility\n"
    "assert not {'torch', 'transformers', 'peft', 'datasets', 'pandas'} & set(sys.modules)\n",
}


ALSO = ("another model before hf_mobility", "our model file first", "PEFT before hf_mobility", "the Auto classes first")


@pytest.mark.parametrize(
    "code", [pytest.param(CASES[name], id=name, marks=[pytest.mark.slow] * (name in ALSO)) for name in CASES]
)
def test_registration_works_whatever_is_imported_first(code: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]


# A module of one system that cannot be imported, and what of that system is used then.
BROKEN = {
    "configuration_raw": "AutoConfig.for_model('mobility_raw')",
    "modeling_raw": "AutoModel.from_config(AutoConfig.for_model('mobility_raw'))",
    "tokenization_raw": "tokenizer_class_from_name('RawTokenizer').from_pretrained",
}


@pytest.mark.parametrize("module", BROKEN)
def test_one_broken_system_is_named_and_leaves_the_others_working(module: str, tmp_path: Path) -> None:
    folder = module.partition("_")[0].replace("configuration", "modeling")
    code = (
        f"import sys\nsys.modules['hf_mobility.{folder}.{module}'] = None\n"
        "import hf_mobility\n" + ALL + TOKENIZER + "assert type(AutoModel.from_config(AutoConfig.for_model('gpt2', "
        "n_layer=1, n_embd=8, n_head=1, vocab_size=9))).__name__ == 'GPT2Model'\n"
        f"try:\n    {BROKEN[module]}\nexcept ImportError as error:\n"
        f"    assert 'hf_mobility.{folder}.Raw' in str(error) and '{module}' in str(error), error\n"
        "else:\n    raise SystemExit('no error')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert ("mobility_raw is not registered" in result.stderr) == (module == "configuration_raw")


def test_a_former_name_is_the_present_one_and_says_so() -> None:
    with pytest.warns(FutureWarning, match=r"hf_mobility.summarise is now hf_mobility.summarize"):
        assert hf_mobility.summarise is hf_mobility.summarize
