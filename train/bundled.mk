# The bundled models from nothing but dataset1 and ImageNet kernels, schedule by schedule as their cards describe them:
#
#     make bundled DATA=dataset1 KERNELS=vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 [CLIPS=FOLDER] [RUNS=runs]
#
# CLIPS: road clips without labels, which the fast network learns from too. A finished run is left alone, and one that
# was stopped goes on. `make assets` turns the last two runs into what ships.

RUNS ?= runs
CLIPS ?=
ENDS = --batch-norm --freeze-blocks 2 --learning-rate
TAUGHT = --batch-norm --learning-rate 5e-4 $(if $(CLIPS),--unlabelled $(CLIPS))

# `best`, in the order of docs/model_card.md
fit_small = --epochs 50 --block-widths 64,128,256,256,256 --head-widths 256,256 --weights "$(KERNELS)"
fit_tuned = --epochs 12 --start $(RUNS)/small --learning-rate 1e-4
fit_again = --epochs 17 --start $(RUNS)/tuned --batch-norm --learning-rate 2e-4 --seed 2
average_mean = $(RUNS)/tuned $(RUNS)/again
fit_nights = --epochs 20 --start $(RUNS)/mean $(ENDS) 2e-4 --seed 5
fit_large = --epochs 110 --start $(RUNS)/nights --batch-norm --freeze-blocks 1 --learning-rate 7e-4 --seed 11 \
	--input-size 544x736 --crop-size 384x480 --batch-size 12 --every 30
fit_surfaces = --epochs 40 --start $(RUNS)/large $(ENDS) 2e-4 --seed 21 --input-size 352x480
average_mixed = $(RUNS)/large $(RUNS)/surfaces --share 0.75
fit_closer = --epochs 40 --start $(RUNS)/mixed $(ENDS) 2e-4 --seed 41 --input-size 448x608
average_both = $(RUNS)/surfaces $(RUNS)/closer --share 0.6
fit_best = --epochs 12 --start $(RUNS)/both $(ENDS) 2e-4 --seed 61 --input-size 352x480 --augment light=0,lens=0 \
	--weight-offset 1.15

# `fast`, in the order of docs/model_card_fast.md
fit_fast = --epochs 52 --start $(RUNS)/tuned --block-widths 24,48,80,96,96 --head-widths 48,64
fit_fast_taught = --epochs 46 --start $(RUNS)/fast --teacher $(RUNS)/mean $(TAUGHT) --seed 2
fit_fast_nights = --epochs 20 --start $(RUNS)/fast_taught $(ENDS) 2e-4 --seed 6
fit_fast_again = --epochs 80 --start $(RUNS)/fast_nights --teacher $(RUNS)/nights $(TAUGHT) --freeze-blocks 2 --seed 8
average_fast_mean = $(RUNS)/fast_nights $(RUNS)/fast_again --share 0.5

FITTED = $(patsubst fit_%,%,$(filter fit_%,$(.VARIABLES)))
AVERAGED = $(patsubst average_%,%,$(filter average_%,$(.VARIABLES)))
weights = $(1:%=$(RUNS)/%/model.weights.h5)

.PHONY: bundled given
bundled: $(call weights,best fast_mean)

given:
	@test -n "$(DATA)" -a -n "$(KERNELS)" || \
		{ echo "error: make bundled needs DATA=(the folder of dataset1) and KERNELS=(a file of ImageNet kernels)"; exit 2; }

# A run waits for those that its options name, and is not made again for being older.
$(foreach run,$(FITTED) $(AVERAGED),$(eval $(call weights,$(run)): | given $(TEST)/ready \
	$(call weights,$(patsubst $(RUNS)/%,%,$(filter $(RUNS)/%,$(fit_$(run)) $(average_$(run)))))))

resume = $(if $(wildcard $(RUNS)/$*/checkpoint.npz),--resume)

$(call weights,$(FITTED)): $(RUNS)/%/model.weights.h5:
	$(TEST)/bin/python -m train fit "$(DATA)" --out $(RUNS)/$* --validation-share 0.1 $(fit_$*) $(resume)

$(call weights,$(AVERAGED)): $(RUNS)/%/model.weights.h5:
	$(TEST)/bin/python -m train average $(average_$*) --out $(RUNS)/$*
