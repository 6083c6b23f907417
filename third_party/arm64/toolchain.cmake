# Builds for 64-bit ARM Linux: cmake --toolchain third_party/arm64/toolchain.cmake -DFL_SYSROOT=FOLDER (made by third_party/arm64/sysroot).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
# cmake's own trial builds run with this file again and must find the sysroot too.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES FL_SYSROOT)
if(NOT FL_SYSROOT)
  message(FATAL_ERROR "FL_SYSROOT is not set: third_party/arm64/sysroot FOLDER makes one, then -DFL_SYSROOT=FOLDER")
endif()

set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_SYSROOT ${FL_SYSROOT})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
# Programs are this machine's, all else is the device's.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
# LibTorch's own libraries need others that are never named on the command line.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,${FL_SYSROOT}/usr/lib/aarch64-linux-gnu -Wl,-rpath-link,${FL_SYSROOT}/usr/lib/aarch64-linux-gnu/openblas-pthread")
# For tests: what has to run a program that was built here.
find_program(FL_QEMU NAMES qemu-aarch64-static qemu-aarch64)
if(FL_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${FL_QEMU} -L ${FL_SYSROOT})
endif()
