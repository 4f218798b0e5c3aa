"""What makes training data: conversion, decontamination, synthesis, source code."""
