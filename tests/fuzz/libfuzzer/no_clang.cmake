message(FATAL_ERROR "The fuzz targets need clang++ with libFuzzer. Install it (third_party/bootstrap does), then configure again.")
