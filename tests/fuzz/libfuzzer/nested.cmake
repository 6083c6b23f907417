# libFuzzer comes with clang, the rest of the tree is built by any compiler: the fuzz targets are a build of the same tree
# in a folder of its own, by clang, with ASan and UBSan, without LibTorch. Each becomes one ctest entry of label fuzz.
set(fl_fuzz_folder ${CMAKE_CURRENT_LIST_DIR})

# fl_add_fuzzers(): one target and one test for each fuzz_NAME.cpp of this folder, with the seeds in corpus/NAME/.
function(fl_add_fuzzers)
  find_program(FL_CLANGXX NAMES clang++ clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14)
  file(GLOB sources CONFIGURE_DEPENDS ${fl_fuzz_folder}/fuzz_*.cpp)
  if(NOT FL_CLANGXX)
    # Not an error here, or ./quickstart would need clang; the tests must not pass without having run.
    add_test(NAME libfuzzer COMMAND ${CMAKE_COMMAND} -P ${fl_fuzz_folder}/no_clang.cmake)
    set_tests_properties(libfuzzer PROPERTIES LABELS fuzz)
    return()
  endif()

  set(build ${CMAKE_BINARY_DIR}/fuzzers)
  cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
  add_custom_command(OUTPUT ${build}/build.ninja
    COMMAND ${CMAKE_COMMAND} -G Ninja -S ${CMAKE_SOURCE_DIR} -B ${build}
            -DCMAKE_CXX_COMPILER=${FL_CLANGXX} -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1"
            -DFL_SANITIZE=fuzzer-no-link,address,undefined -DFL_BUILD_FUZZERS=ON -DFL_BUILD_TESTS=OFF
            -DFL_BUILD_BENCHMARKS=OFF -DFL_WITH_TORCH=OFF -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON
            "-DCMAKE_PREFIX_PATH=${CMAKE_PREFIX_PATH}"
            --log-level=WARNING
    COMMENT "Configuring the fuzz targets (${FL_CLANGXX})" VERBATIM)
  # Ninja knows what is out of date in there. The load limit keeps two builds from overfilling the machine.
  add_custom_target(fuzzers ALL COMMAND ${CMAKE_COMMAND} --build ${build} --target fuzzers -j ${cores} -- --quiet -l ${cores}
    DEPENDS ${build}/build.ninja COMMENT "Building the fuzz targets" VERBATIM)

  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    string(REGEX REPLACE "^fuzz_" "" corpus ${name})
    fl_add_fuzz_test(${name} ${build} ${fl_fuzz_folder}/corpus/${corpus})
  endforeach()
endfunction()

# fl_add_fuzz_test(NAME BUILD CORPUS): the same inputs every time: fixed seed, counted runs, a scratch folder that starts
# empty. A finding stays in BUILD/NAME.found/ as an input with which `BUILD/bin/NAME FILE` repeats it.
function(fl_add_fuzz_test name build corpus)
  set(scratch ${build}/${name}.scratch)
  set(found ${build}/${name}.found)
  set(seeds "")
  if(EXISTS ${corpus})
    set(seeds "'${corpus}'")
  endif()
  set(runs ${FL_FUZZ_RUNS})
  set(malloc_limit_mb 256)
  if(name MATCHES "^fuzz_secagg")
    set(malloc_limit_mb 1)  # nothing in it is larger than a few messages
  endif()
  if(name MATCHES "^fuzz_secagg_")
    math(EXPR runs "${FL_FUZZ_RUNS} / 10")  # each is a piece of a round, with its key agreements and signatures
  endif()
  add_test(NAME ${name} COMMAND sh -c "\
rm -rf '${scratch}' && mkdir -p '${scratch}' '${found}' && \
exec '${build}/bin/${name}' -runs=${runs} -seed=1 -max_len=1024 -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=${malloc_limit_mb} \
-use_value_profile=1 -verbosity=0 -print_final_stats=1 -artifact_prefix='${found}/' '${scratch}' ${seeds}")
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT 600)
endfunction()

set(FL_FUZZ_RUNS 50000 CACHE STRING "Inputs that ctest gives to each fuzz target")
fl_add_fuzzers()
