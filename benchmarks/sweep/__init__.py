"""Hundreds of models of other people's, each trained for three steps: does the plan hold?"""
